"""The lines of a Dockerfile: parser directives at the top, and continued lines joined to one.

This much BuildKit's parser does itself, but it does not tell where in the file something stood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from converter.dockerfile.expand import SPACE
from converter.dockerfile.model import DockerfileError

MOST_BYTES = 4 << 20  # of a Dockerfile
MOST_LINE = 65535  # bytes of a line: BuildKit's bufio.MaxScanTokenSize
MOST_JOINED = 256 << 10  # characters of an instruction; Linux takes no argument of more than 128 KiB
# BuildKit's parser takes a time that grows with the square of a word's length: a second for 64 KiB.
_MOST_SQUARES = (128 << 10) ** 2
_LONG_WORD = 4096

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)[\t\f\r ]*=[\t\f\r ]*(.+?)[\t\f\r ]*", re.ASCII)
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_CONTINUED = {
    escape: re.compile(rf"(?:(?<=[^{re.escape(escape)}])|^){re.escape(escape)}[ \t]*\Z") for escape in "\\`"
}


@dataclass(frozen=True)
class Line:
    """An instruction's line, its continuations joined: from line `number` to line `end` of the file.

    `pieces` says where it came from: (offset in text, line, column), columns from 1.
    """

    text: str
    number: int
    end: int
    pieces: tuple[tuple[int, int, int], ...]
    has_gap: bool = False

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character of the text."""
        start, number, column = next(
            (piece for piece in reversed(self.pieces) if piece[0] <= offset), self.pieces[0]
        )
        return number, column + offset - start

    def rest(self, offset: int) -> Line:
        """What follows, as a line of its own."""
        if not offset:
            return self
        number, column = self.place(offset)
        pieces = [(at - offset, line, place) for at, line, place in self.pieces if at > offset]
        return Line(self.text[offset:], self.number, self.end, ((0, number, column), *pieces), self.has_gap)


@dataclass
class Directives:
    """The parser directives, and how many lines they are."""

    escape: str = "\\"
    syntax: str | None = None
    lines: int = 0
    seen: set[str] = field(default_factory=set)


def read_directives(lines: Sequence[str], file: str) -> Directives:
    """Read `# syntax=`, `# escape=` and `# check=`, which only count before everything else, comments too."""
    found = Directives()
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.rstrip("\r\n").lstrip(SPACE))
        if match is None or match[1].lower() not in _DIRECTIVES:
            break
        name = match[1].lower()
        column = line.index("#") + 1
        if name in found.seen:
            text = f"only one {name} parser directive can be used"
            raise DockerfileError(file, number, column, text, "remove one of them")
        found.seen.add(name)
        found.lines = number
        if name == "syntax":
            found.syntax = match[2].split(" ")[0]
        elif name == "escape":
            if match[2] not in ("\\", "`"):
                text = f"invalid escape token '{match[2]}' does not match ` or \\"
                raise DockerfileError(file, number, line.index(match[2]) + 1, text, "write # escape=`")
            found.escape = match[2]
    return found


def is_continued(text: str, escape: str) -> bool:
    """Whether a line goes on in the next one."""
    return _CONTINUED[escape].search(text) is not None


def join(lines: Sequence[str], index: int, escape: str) -> Line:
    """The instruction that begins at lines[index]: without continuation characters, comments and empty lines."""
    continued = _CONTINUED[escape]
    text = lines[index].rstrip("\r\n")
    column = len(text) - len(text.lstrip(SPACE)) + 1
    text = text.lstrip(SPACE)
    parts: list[str] = []
    pieces: list[tuple[int, int, int]] = []
    length, at, has_gap = 0, index, False
    while True:
        match = continued.search(text)
        part = text[: match.start()] if match else text
        pieces.append((length, at + 1, column))
        parts.append(part)
        length += len(part)
        if match is None:
            break
        column = 1
        while (at := at + 1) < len(lines):
            text = lines[at].rstrip("\r\n")
            bare = text.lstrip(SPACE)
            if bare and bare[0] != "#":
                break
            has_gap = has_gap or not bare
        else:
            break
    line = Line("".join(parts), index + 1, min(at + 1, len(lines)), tuple(pieces), has_gap)
    return line.rest(len(line.text) - len(line.text.lstrip(SPACE)))


def is_blank(line: str) -> bool:
    """Nothing, or a comment."""
    bare = line.strip(SPACE)
    return not bare or bare[0] == "#"


def check_lengths(text: str, file: str, escape: str) -> None:
    """Refuse what BuildKit's parser would take minutes for."""
    if len(text) <= _LONG_WORD:
        return
    end = rf"{re.escape(escape)}[ \t]*\r?\n"
    squares = 0
    for word in re.finditer(rf"(?:[^\s{re.escape(escape)}]|{end}|{re.escape(escape)})++", text):
        length = word.end() - word.start()
        if length > _LONG_WORD:
            squares += length * length
            if squares > _MOST_SQUARES:
                _refuse(text, word.start(), file, "this Dockerfile has words that are too long to be read")
    start, position, continued = 0, 0, False
    for line in text.split("\n"):
        bare = line.strip(" \t\r")
        if bare.endswith(escape):
            start = start if continued else position
            continued = True
        elif bare and bare[0] != "#":  # comments and empty lines leave an instruction continued
            continued = False
        position += len(line) + 1
        if continued and position - start > MOST_JOINED:
            _refuse(text, start, file, f"this instruction is longer than {MOST_JOINED >> 10} KiB")


def _refuse(text: str, position: int, file: str, what: str) -> None:
    number = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    raise DockerfileError(file, number, column, what, "put long data into a file and COPY it")
