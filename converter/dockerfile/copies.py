"""COPY and ADD: what is copied from where (BuildKit's dispatchCopy); what is there is not looked at here."""

from __future__ import annotations

import re

from converter.dockerfile.draft import Draft, clean
from converter.dockerfile.flags import Flags, flag_error, parse_flags
from converter.dockerfile.heredocs import find_mark, strip_tabs
from converter.dockerfile.model import Copy, InlineFile, Instruction
from converter.dockerfile.modes import is_mode

_OCTAL = re.compile(r"[0-7]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_URL = re.compile(r"https?://")
_GIT = re.compile(r"(?:git|ssh)://|https?://[^#?]*\.git(?:#|$)|[\w-]+@[\w.-]+:", re.IGNORECASE)


def check_copy(instruction: Instruction) -> None:
    """What can be told from a COPY or ADD alone. Raises DockerfileError."""
    keyword = instruction.keyword
    flags = parse_flags(instruction)
    if len(instruction.words) < 2:
        text = f"{keyword} requires at least two arguments, but only one was provided."
        if not instruction.words:
            text = f"{keyword} requires at least two arguments, but none was provided."
        raise instruction.error(
            f"{text} Destination could not be determined", f"write {keyword} SOURCE DESTINATION"
        )
    if find_mark(instruction.words[-1]):
        raise instruction.error(
            f"{keyword} cannot accept a heredoc as a destination", "the last word is the destination"
        )
    origin = flags.find("from")
    if origin and "$" in (origin.value or ""):
        raise flag_error(
            instruction,
            origin,
            "variable expansion is not supported for --from",
            "write FROM with the variable AS a name, and --from= that name",
        )


def make_copy(draft: Draft, instruction: Instruction) -> Copy:
    """The step of a COPY or ADD. Raises DockerfileError."""
    flags = parse_flags(instruction)
    add = instruction.keyword == "ADD"
    chown = draft.expand(instruction, flags.text("chown"))
    chmod = draft.expand(instruction, flags.text("chmod"))
    checksum = draft.expand(instruction, flags.text("checksum"))
    sources = [word for word in instruction.words[:-1] if find_mark(word) is None]
    sources = [draft.expand(instruction, word) or "." for word in sources]
    destination = _destination(draft, draft.expand(instruction, instruction.words[-1]))
    inline = _inline(draft, instruction)
    if not add:
        _check_local(instruction, sources)
    if chmod and not _is_mode(instruction, flags, chmod):
        draft.warn(f"{instruction.file}:{instruction.line}: --chmod={chmod} is no mode; Docker ignores it")
        chmod = ""
    if checksum:
        _check_checksum(instruction, flags, checksum, sources, len(inline))
    origin = flags.find("from")
    return Copy(
        number=draft.number,
        instruction=instruction,
        state=draft.state(),
        add=add,
        sources=tuple(sources),
        destination=destination,
        inline=inline,
        origin=draft.find(instruction, origin, origin.value) if origin and origin.value else None,
        chown=chown or None,
        chmod=chmod or None,
        link=bool(flags.truth("link")),
        parents=bool(flags.truth("parents")),
        exclude=tuple(draft.expand(instruction, flag.value or "") for flag in flags.all("exclude")),
        checksum=checksum or None,
        keep_git_dir=bool(flags.truth("keep-git-dir")),
        unpack=flags.truth("unpack"),
    )


def _destination(draft: Draft, written: str) -> str:
    """Absolute. What ends in "/", and ".", is a directory; "/." keeps its dot only when it was written absolute."""
    path = clean(written, draft.state().working_directory)
    if written in ("", ".") or written.endswith("/"):
        return path if path == "/" else f"{path}/"
    if written.startswith("/") and written.endswith("/."):
        return "/." if path == "/" else f"{path}/."
    return path


def _inline(draft: Draft, instruction: Instruction) -> tuple[InlineFile, ...]:
    contents = {heredoc.name: heredoc.content for heredoc in instruction.heredocs}
    files = []
    for word in instruction.words[:-1]:
        mark = find_mark(word)
        if mark is None:
            continue
        if "/" in mark.name or mark.name in (".", ".."):
            raise instruction.error(
                f"a here-document cannot make a file named '{mark.name}'",
                "its word is the file's name; the directory is the destination",
            )
        content = contents.get(mark.name, "")
        if mark.strips_tabs:
            content = strip_tabs(content)
        if mark.expands:
            content = draft.expand_heredoc(instruction, content)
        files.append(InlineFile(mark.name, content.encode()))
    return tuple(files)


def _check_local(instruction: Instruction, sources: list[str]) -> None:
    for source in sources:
        if _GIT.match(source):
            raise instruction.error("source can't be a git ref for COPY", "ADD takes git repositories")
        if _URL.match(source):
            raise instruction.error("source can't be a URL for COPY", "ADD takes URLs")


def _is_mode(instruction: Instruction, flags: Flags, mode: str) -> bool:
    if not _OCTAL.fullmatch(mode) or (len(mode) < 32 and int(mode, 8) <= 0o7777):
        return is_mode(mode)
    flag = flags.find("chmod")
    assert flag is not None
    text = f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
    raise flag_error(instruction, flag, text, "write it like --chmod=0755")


def _check_checksum(
    instruction: Instruction, flags: Flags, checksum: str, sources: list[str], inline: int
) -> None:
    flag = flags.find("checksum")
    assert flag is not None
    if not _DIGEST.fullmatch(checksum):
        raise flag_error(
            instruction, flag, f"invalid checksum digest '{checksum}'", "write sha256: and 64 hex digits"
        )
    if len(sources) != 1 or inline:
        raise flag_error(
            instruction, flag, "checksum can't be specified for multiple sources", "write one ADD for each"
        )
    if not _URL.match(sources[0]) and not _GIT.match(sources[0]):
        raise flag_error(
            instruction, flag, "checksum can't be specified for non-HTTP sources", "remove --checksum"
        )
