"""Writing an instruction so that reading it again gives the same: keyword, words, flags and here-documents."""

from __future__ import annotations

import json
import re

import dockerfile

from converter.dockerfile.lines import is_continued
from converter.dockerfile.model import Flag, Instruction

_PLAIN = re.compile(r"[\w./:,@%+=*?$(){}-]*", re.ASCII)


def write(instruction: Instruction, escape: str = "\\") -> str:
    """The instruction on one line, then its here-documents; `escape` is its Dockerfile's, and ends in a newline."""
    line = _line(instruction, escape)
    if is_continued(line, escape):
        line += "\v"  # white space that BuildKit drops, but not behind the character that continues a line
    heredocs = (instruction.trigger or instruction).heredocs
    return f"{line}\n" + "".join(f"{heredoc.content}{heredoc.name}\n" for heredoc in heredocs)


def _line(instruction: Instruction, escape: str) -> str:
    if instruction.trigger:
        return f"ONBUILD {_line(instruction.trigger, escape)}"
    flags = [_flag(flag) for flag in instruction.flags]
    body = _body(instruction, escape)
    if body.startswith("--"):
        flags.append("--")  # what follows is no flag
    return " ".join((instruction.keyword, *flags, *([body] if body else [])))


def _flag(flag: Flag) -> str:
    text = f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}"
    if _PLAIN.fullmatch(text):
        return text
    # BuildKit takes bytes for characters, some of them for spaces: only quotes are safe.
    hidden = text[2:].replace("\\", "\\\\").replace('"', '\\"')
    return f'--"{hidden}"'


def _body(instruction: Instruction, escape: str) -> str:
    words = instruction.words
    match instruction.keyword:
        case "HEALTHCHECK" if instruction.is_json:
            return f"{words[0]} {_json(words[1:])}"
        case _ if instruction.is_json:
            return _json(words)
        case "ENV" | "LABEL":
            return _pairs(instruction, escape)
        case "COPY" | "ADD" | "VOLUME":
            text = " ".join(words)
            return "\f".join(words) if _is_json(text) else text
    return " ".join(words)


def _json(words: tuple[str, ...]) -> str:
    return json.dumps(words, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        return text.startswith("[") and isinstance(json.loads(text), list)
    except ValueError:
        return False


def _pairs(instruction: Instruction, escape: str) -> str:
    """NAME=value, with the quotes that are part of the words; the old form NAME value where nothing else will do."""
    words = instruction.words
    text = " ".join(f"{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True))
    if len(words) != 2:
        return text
    head = f"# escape={escape}\n" if escape != "\\" else ""
    try:
        (read,) = dockerfile.parse_string(f"{head}{instruction.keyword} -- {text}\n")
    except dockerfile.GoParseError:
        return " ".join(words)
    return text if read.value == words else " ".join(words)
