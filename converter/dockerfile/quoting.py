"""Any text as data in a shell script: quoted words, comments, one readable line.

Bytes that are no UTF-8 are surrogate escapes (PEP 383).
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+")  # a word of these needs no quotes, wherever it stands
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BREAK = re.compile(r"(?<=&& )|(?<=\|\| )|(?<=; )|(?<=\S )(?= +\S)|(?<=\S)(?=\t)")
_WIDTH = 100  # characters of a line that is worth breaking


def quote(text: str) -> str:
    """`text` as one word that no POSIX shell expands, splits or takes for an option of its own."""
    if _PLAIN.fullmatch(text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def data(text: str) -> str:
    """The same, in quotes also where none are needed: for values, which then look like values."""
    return f"'{text}'" if _PLAIN.fullmatch(text) else quote(text)


def assignment(name: str, value: str) -> str:
    """NAME=VALUE as one word for env(1)."""
    if _NAME.fullmatch(name):
        return f"{name}={data(value)}"
    return quote(f"{name}={value}")


def command(text: str) -> str:
    """A shell command as one word, over several lines where it is long: 'a && '\\, newline, 'b' is one word.

    The lines of a Dockerfile that were joined there are recognised by their indentation.
    """
    if len(text) <= _WIDTH or "\n" in text:
        return quote(text)
    lines: list[str] = []
    for part in _BREAK.split(text):
        if lines and (len(lines[-1]) + len(part) <= _WIDTH * 3 // 4) and not part.startswith((" ", "\t")):
            lines[-1] += part
        else:
            lines.append(part)
    return "\\\n".join("'" + line.replace("'", "'\\''") + "'" for line in lines)


def comment(text: str, indent: str = "#   ") -> str:
    """`text` as comment lines, without anything that could end a comment or drive a terminal."""
    return "\n".join((indent + printable(line)).rstrip() for line in text.split("\n"))


def printable(text: str) -> str:
    """`text` on one line: what cannot be seen is written as Python escapes it."""
    if text.isprintable():  # most are, and this is fast
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def one_line(text: str, limit: int = 76) -> str:
    """The beginning of `text` on one line of at most `limit` characters: for progress and errors."""
    line = printable(" ".join(re.sub(r"\\\s*\n", " ", text[: 4 * limit]).split()))
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1].rstrip() + "…"


def _escaped(c: str) -> str:
    return f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else repr(c)[1:-1]
