"""RUN: what is run, by what, and with which mounts (BuildKit's dispatchRun)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

from converter.dockerfile.draft import Draft
from converter.dockerfile.flags import flag_error, parse_flags
from converter.dockerfile.heredocs import find_mark, strip_tabs
from converter.dockerfile.model import Instruction, Run, State
from converter.dockerfile.mount_flag import check_mount, parse_mount
from converter.dockerfile.parser import near
from converter.dockerfile.variables import proxies

_NETWORKS = ("default", "none", "host")
_SECURITIES = ("sandbox", "insecure")
_SCRIPTS = "/dev/pipes"


def check_run(instruction: Instruction) -> None:
    """What can be told from a RUN alone. Raises DockerfileError."""
    flags = parse_flags(instruction)
    for mount in flags.all("mount"):
        check_mount(instruction, mount)
    for name, allowed in (("network", _NETWORKS), ("security", _SECURITIES)):
        flag = flags.find(name)
        if flag and flag.value not in allowed:
            text = {
                "network": f'invalid network mode "{flag.value}"',
                "security": f'security "{flag.value}" is not valid',
            }
            hint = near(flag.value or "", allowed) or f"the values are {', '.join(allowed)}"
            raise flag_error(instruction, flag, text[name], hint)


def make_run(draft: Draft, instruction: Instruction) -> Run:
    """The step of a RUN. Raises DockerfileError."""
    flags = parse_flags(instruction)
    argv, script = _command(draft, instruction)
    return Run(
        number=draft.number,
        instruction=instruction,
        state=_with_proxies(draft),
        argv=argv,
        script=script,
        mounts=tuple(parse_mount(draft, instruction, flag) for flag in flags.all("mount")),
        network=cast(Literal["default", "none", "host"], flags.text("network") or "default"),
        insecure=flags.text("security") == "insecure",
    )


def _command(draft: Draft, instruction: Instruction) -> tuple[tuple[str, ...], bytes | None]:
    if instruction.is_json:
        if not instruction.words:
            raise instruction.error("RUN [] runs nothing", 'write RUN ["PROGRAM", "ARGUMENT"]')
        return instruction.words, None
    line = " ".join(instruction.words)
    if not instruction.heredocs:
        return (*draft.shell, line), None
    first = instruction.heredocs[0]
    if find_mark(line) is None:  # the shell has to do more than read it
        whole = line + "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs)
        return (*draft.shell, whole), None
    content = strip_tabs(first.content) if first.strips_tabs else first.content
    if not first.content.startswith("#!"):
        return (*draft.shell, content), None
    if "/" in first.name or first.name in (".", ".."):
        raise instruction.error(
            f"the script cannot be a file named '{first.name}'", "name the here-document by one word: <<EOF"
        )
    return (f"{_SCRIPTS}/{first.name}",), content.encode()


def _with_proxies(draft: Draft) -> State:
    state = draft.state()
    added = proxies(draft.options.build_args)
    if not added:
        return state
    names = {name for name, _ in added}
    return replace(
        state,
        env=tuple(pair for pair in state.env if pair[0] not in names),
        args=(*(pair for pair in state.args if pair[0] not in names), *added),
    )
