"""Reading settings files, drop-ins and the network script as their readers do (systemd.syntax(7))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ASSIGNMENT = re.compile(
    r"^[ \t]*(?:readonly |export )?[ \t]*([A-Za-z_]\w*)=(\"[^\"]*\"|'[^']*'|\S*)", re.MULTILINE
)
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_PORT = re.compile(
    r"(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?([0-9]{1,5})(?:-([0-9]{1,5}))?:[0-9-]{1,11}/(tcp|udp|sctp)"
)
_NAMED = {"n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Setting:
    """One `key`=`value` line of [`section`]."""

    section: str
    key: str
    value: str


@dataclass(frozen=True)
class PublishedPort:
    """Ports `first` to `last` of the host that lead to the machine; `address` "" is every address of the host."""

    protocol: str
    address: str
    first: int
    last: int

    def __str__(self) -> str:
        numbers = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        host = f"[{self.address}]" if ":" in self.address else self.address or "*"
        return f"{host}:{numbers}/{self.protocol}"


def parse_settings(text: str) -> tuple[Setting, ...]:
    """The lines of a settings file or unit, in order; what is no assignment is left out, as systemd does."""
    found = []
    section = ""
    lines = iter(re.split("[\r\n\0]", text))
    for line in lines:
        line = line.lstrip()
        if not line or line[0] in "#;":
            continue
        while _continued(line):
            following = next(lines, "")
            while following.lstrip()[:1] in {"#", ";"}:
                following = next(lines, "")
            line = f"{line[:-1]} {following}"
        line = line.rstrip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            found.append(Setting(section, key.rstrip(), value.strip()))
    return tuple(found)


def _continued(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def split_words(value: str) -> list[str]:
    """The words of a list: split at white space, quotes also inside a word, no escapes; none when one is open."""
    words: list[str] = []
    pieces: list[str] = []
    inside_word = False
    quote = ""
    for c in value:
        if quote:
            if c == quote:
                quote = ""
            else:
                pieces.append(c)
        elif c in "\"'":
            quote, inside_word = c, True
        elif c in " \t":
            if inside_word:
                words.append("".join(pieces))
            pieces, inside_word = [], False
        else:
            pieces.append(c)
            inside_word = True
    if quote:
        return []
    return [*words, "".join(pieces)] if inside_word else words


def split_paths(value: str) -> list[str]:
    """The parts of Bind= and the like: separated by colons, a backslash takes the next character's meaning away."""
    parts = [""]
    characters = iter(value)
    for c in characters:
        if c == ":":
            parts.append("")
        else:
            parts[-1] += next(characters, "") if c == "\\" else c
    return parts


def unescaped(word: str) -> str:
    """A word of the launcher's command line after --escaped."""

    def character(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x" and len(code) == 3:
            return bytes([int(code[1:], 16)]).decode("latin-1")
        return _NAMED.get(code, code)

    text = _ESCAPE.sub(character, word)
    try:
        return text.encode("latin-1").decode("utf-8", "surrogateescape") if "\\x" in word else text
    except UnicodeEncodeError:
        return text


def shell_variables(script: str) -> dict[str, str]:
    """The plain assignments of a shell script, the first of each name."""
    found: dict[str, str] = {}
    for match in _ASSIGNMENT.finditer(script):
        found.setdefault(match[1], match[2].strip("\"'"))
    return found


def parse_ports(words: Iterable[str]) -> tuple[PublishedPort, ...]:
    """PORTS of a network script, [IP:]HOST[-LAST]:MACHINE[-LAST]/tcp|udp|sctp; what is none is left out."""
    found = []
    for word in words:
        if match := _PORT.fullmatch(word):
            address, first, last, protocol = match.groups("")
            found.append(PublishedPort(protocol, address.strip("[]"), int(first), int(last or first)))
    return tuple(found)


def is_yes(value: str | None) -> bool:
    """systemd's booleans."""
    return (value or "").lower() in {"1", "yes", "y", "true", "t", "on"}


def is_no(value: str | None) -> bool:
    """systemd's booleans; what is none of them is neither."""
    return (value or "").lower() in {"0", "no", "n", "false", "f", "off"}
