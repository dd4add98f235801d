"""Reading a Dockerfile: syntax by BuildKit's own parser (the package `dockerfile`), and what that leaves out.

The package says neither where an error is, nor where a flag stands, nor whether a here-document expands, nor what
flags and here-documents belong to ONBUILD's trigger.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import dockerfile

from converter.dockerfile.expand import SPACE, ExpansionError
from converter.dockerfile.heredocs import Mark, find_marks, take
from converter.dockerfile.lines import (
    MOST_BYTES,
    MOST_LINE,
    Line,
    check_lengths,
    is_blank,
    join,
    read_directives,
)
from converter.dockerfile.model import Dockerfile, DockerfileError, Flag, Heredoc, Instruction

KEYWORDS = tuple(sorted(name.upper() for name in dockerfile.all_cmds()))
_MOST_INSTRUCTIONS = 5000
_SPLIT = re.compile(r"[\t\v\f\r ]+")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NOT_PAIR = re.compile(r'can\'t find = in "(.*?)"', re.DOTALL)
_HINTS = (  # what BuildKit says, and what to do about it
    ("must have two arguments", "write NAME=value"),
    ("can't find =", 'quote a value that has spaces: NAME="a b"'),
    ("arrays must be comprised of strings only", 'put every argument in double quotes: ["nginx", "-g"]'),
    ("is not ASCII", "put the word in double quotes, and only plain spaces between words"),
    ("file with no instructions", "begin with FROM"),
)


def read(file: Path | str, data: bytes) -> Dockerfile:
    """Read a Dockerfile's bytes; `file` is its name as messages show it.

    Raises DockerfileError: what BuildKit's parser refuses, unknown instructions, NUL, what is not UTF-8, and what is
    far larger than a Dockerfile can sensibly be.
    """
    name = str(file)
    text = _decoded(data, name)
    lines = text.split("\n")
    lines = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    directives = read_directives(lines, name)
    check_lengths(text, name, directives.escape)
    # The package knows fewer directives than BuildKit does today: it gets no more than the one it needs.
    head = ["#\n"] * directives.lines
    if head and directives.escape != "\\":
        head[0] = f"# escape={directives.escape}\n"
    reader = _Reader(name, lines, directives.escape)
    try:
        commands = dockerfile.parse_string("".join((*head, *lines[directives.lines :])))
    except (dockerfile.GoParseError, UnicodeDecodeError) as error:
        raise reader.locate(_said(error), directives.lines) from None
    if len(commands) > _MOST_INSTRUCTIONS:
        last = commands[_MOST_INSTRUCTIONS].start_line
        raise DockerfileError(name, last, 1, f"more than {_MOST_INSTRUCTIONS} instructions", "split it up")
    instructions = tuple(reader.instruction(command) for command in commands)
    return Dockerfile(name, instructions, directives.escape, directives.syntax, tuple(reader.warnings))


def near(wrong: str, right: Sequence[str], *, likeness: float = 0.6) -> str:
    """The hint that one of `right` may have been meant; "" when none is like it. `likeness` is difflib's ratio."""
    lower = {name.lower(): name for name in right}
    match = difflib.get_close_matches(wrong[:100].lower(), lower, n=1, cutoff=likeness)
    return f"did you mean {lower[match[0]]}?" if match else ""


def _decoded(data: bytes, file: str) -> str:
    if not data:
        raise DockerfileError(file, 1, 1, "the Dockerfile cannot be empty", "begin with FROM")
    for number, line in enumerate(data[: MOST_BYTES + 1].split(b"\n"), 1):
        if len(line) > MOST_LINE:
            text = f"this line is longer than {MOST_LINE} bytes, more than Docker reads"
            raise DockerfileError(file, number, 1, text, "put long data into a file and COPY it")
    if len(data) > MOST_BYTES:
        text = f"the Dockerfile has {len(data)} bytes, more than {MOST_BYTES >> 20} MiB"
        raise DockerfileError(file, 1, 1, text, "put long data into files and COPY them")
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        line = data[data.rfind(b"\n", 0, error.start) + 1 : error.start]
        raise DockerfileError(
            file,
            number,
            len(line.decode(errors="replace")) + 1,
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            "save the file as UTF-8: iconv -f latin1 -t utf-8",
        ) from None
    if (position := text.find("\0")) >= 0:
        number = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        raise DockerfileError(file, number, column, "a NUL character", "is this a Dockerfile? remove it")
    return text


class _Reader:
    """One file: its physical lines, with their ends."""

    def __init__(self, file: str, lines: list[str], escape: str) -> None:
        self.file = file
        self.lines = lines
        self.escape = escape
        self.warnings: list[str] = []

    def instruction(self, command: dockerfile.Command) -> Instruction:
        line = join(self.lines, command.start_line - 1, self.escape)
        if line.has_gap:
            text = "an empty line within an instruction; Docker will refuse it some day"
            self.warnings.append(f"{self.file}:{line.number}: {text}")
        text = "".join(self.lines[command.start_line - 1 : command.end_line])
        return self._instruction(command, line, command.end_line, text.rstrip("\r\n"))

    def _instruction(self, command: dockerfile.Command, line: Line, end_line: int, text: str) -> Instruction:
        number, column = line.place(0)
        keyword = (command.cmd or "").upper()
        if keyword not in KEYWORDS:
            raise self._unknown(number, column, command.cmd or self.escape)
        if command.json and (nul := _NUL.search(line.text)):
            place = line.place(nul.start())
            raise DockerfileError(self.file, *place, "a NUL character cannot be part of an argument")
        flags = self._flags(command, line)
        trigger = None
        words = command.value
        if keyword == "ONBUILD":
            trigger = self._trigger(command, line, flags, end_line)
            words = (trigger.keyword, *trigger.words) if trigger else ()
        return Instruction(
            keyword=keyword,
            words=words,
            text=text,
            file=self.file,
            line=number,
            end_line=end_line,
            flags=flags,
            is_json=command.json and trigger is None,
            heredocs=_heredocs(command, line) if trigger is None else (),
            column=column,
            trigger=trigger,
        )

    def _flags(self, command: dockerfile.Command, line: Line) -> tuple[Flag, ...]:
        if not command.flags:
            return ()
        starts = _flag_starts(line.text)
        flags = []
        for index, written in enumerate(command.flags):
            place = line.place(starts[index] if index < len(starts) else 0)
            try:  # the package takes every byte of a flag for a character of its own
                whole = written.encode("latin-1").decode()
            except UnicodeDecodeError as error:
                raise DockerfileError(self.file, *place, _said(error), _hint(_said(error))) from None
            name, equals, value = whole.removeprefix("--").partition("=")
            flags.append(Flag(name, value if equals else None, *place))
        return tuple(flags)

    def _trigger(
        self, command: dockerfile.Command, line: Line, flags: tuple[Flag, ...], end_line: int
    ) -> Instruction | None:
        """ONBUILD's instruction. Its text is what goes into an image's config: one line, then here-documents."""
        number, column = line.place(0)
        if flags:
            text = f"unknown flag: {flags[0].name}"
            raise DockerfileError(
                self.file, flags[0].line, flags[0].column, text, "flags follow ONBUILD's instruction"
            )
        start = _SPLIT.search(line.text)
        if command.sub_cmd is None or start is None:
            return None
        inner = line.rest(start.end())
        number, column = inner.place(0)
        keyword = command.sub_cmd.upper()
        if keyword == "ONBUILD":
            text = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            raise DockerfileError(self.file, number, column, text, "remove one ONBUILD")
        if keyword in ("MAINTAINER", "FROM"):
            text = f"{keyword} isn't allowed as an ONBUILD trigger"
            raise DockerfileError(self.file, number, column, text, "remove this line")
        following = "".join(self.lines[line.end : end_line])
        if keyword not in KEYWORDS:
            raise self._unknown(number, column, command.sub_cmd)
        head = f"# escape={self.escape}\n" if self.escape != "\\" else ""
        try:
            only = dockerfile.parse_string(f"{head}{inner.text}\n{following}")[0]
        except (dockerfile.GoParseError, UnicodeDecodeError) as error:
            raise self._error(inner, _said(error)) from None
        expression = inner.text + "".join(f"\n{h.content}{h.name}" for h in only.heredocs)
        return self._instruction(only, inner, end_line, expression)

    def _unknown(self, number: int, column: int, word: str) -> DockerfileError:
        hint = near(word, KEYWORDS) or f"the instructions are {', '.join(KEYWORDS)}"
        return DockerfileError(self.file, number, column, f"unknown instruction: {word}", hint)

    def locate(self, message: str, index: int) -> DockerfileError:
        """Find what the package's `message` is about by reading one instruction after the other."""
        while index < len(self.lines):
            if is_blank(self.lines[index]):
                index += 1
                continue
            line = join(self.lines, index, self.escape)
            index = line.end
            try:
                self._parse(line)
            except (dockerfile.GoParseError, UnicodeDecodeError) as error:
                if "unterminated heredoc" not in str(error):
                    return self._error(line, _said(error))
                try:
                    marks = find_marks(line.text)
                except ExpansionError as wrong:
                    return self._error(line, str(wrong))
                for mark in marks:
                    taken = take(self.lines, index, mark)
                    if taken is None:
                        return self._unterminated(line, index, mark)
                    index = taken[1]
        return DockerfileError(self.file, 1, 1, message, _hint(message))

    def _parse(self, line: Line) -> None:
        head = f"# escape={self.escape}\n" if self.escape != "\\" else ""
        if line.text.strip(SPACE):
            dockerfile.parse_string(f"{head}{line.text}\n")

    def _error(self, line: Line, message: str) -> DockerfileError:
        offset = 0
        if match := _NOT_PAIR.search(message):
            offset = max(line.text.find(f" {match[1]}") + 1, 0)
        elif "comprised of strings" in message:
            offset = max(line.text.find("["), 0)
        return DockerfileError(self.file, *line.place(offset), message, _hint(message))

    def _unterminated(self, line: Line, index: int, mark: Mark) -> DockerfileError:
        hint = f"its end is a line that holds only {mark.name}"
        for at in range(index, len(self.lines)):
            if self.lines[at].strip() == mark.name:
                hint = f"line {at + 1} holds more than {mark.name} alone: remove the spaces around it"
                if not mark.strips_tabs and self.lines[at].lstrip("\t").rstrip("\r\n") == mark.name:
                    hint = f"<<-{mark.name} allows the tabs of line {at + 1}"
                break
        offset = max(line.text.find("<<"), 0)
        return DockerfileError(self.file, *line.place(offset), f"unterminated heredoc {mark.name}", hint)


def _said(error: Exception) -> str:
    """BuildKit looks for spaces byte by byte, and may find one within a character."""
    if isinstance(error, UnicodeDecodeError):
        return "a character that is not ASCII is taken for a space"
    return str(error)


def _hint(message: str) -> str:
    return next((hint for part, hint in _HINTS if part in message), "")


def _heredocs(command: dockerfile.Command, line: Line) -> tuple[Heredoc, ...]:
    if not command.heredocs:
        return ()
    marks = find_marks(line.text)
    return tuple(
        Heredoc(given.name, given.content, mark.expands, mark.strips_tabs, given.file_descriptor)
        for given, mark in zip(command.heredocs, marks, strict=True)
    )


def _flag_starts(text: str) -> list[int]:
    """Where flags begin. They are words with `--` behind the keyword; quotes and backslashes hide spaces."""
    starts: list[int] = []
    match = _SPLIT.search(text)
    position = match.end() if match else len(text)
    while position < len(text):
        if text[position] in SPACE:
            position += 1
            continue
        if not text.startswith("--", position):
            break
        starts.append(position)
        quote = ""
        while position < len(text):
            character = text[position]
            if character == "\\":
                position += 1
            elif quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            elif character in SPACE:
                break
            position += 1
    return starts
