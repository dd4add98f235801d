"""The flags of instructions: which there are, and their values (BuildKit's instructions/bflag.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from converter.dockerfile.model import DockerfileError, Flag, Instruction
from converter.dockerfile.parser import near

Kind = Literal["text", "truth", "list"]
_COPY: Mapping[str, Kind] = {"chown": "text", "chmod": "text", "link": "truth", "exclude": "list"}
FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "FROM": {"platform": "text"},
    "RUN": {"mount": "list", "network": "text", "security": "text"},
    "COPY": {**_COPY, "from": "text", "parents": "truth"},
    "ADD": {**_COPY, "keep-git-dir": "truth", "checksum": "text", "unpack": "truth"},
    "HEALTHCHECK": {
        "interval": "text",
        "timeout": "text",
        "start-period": "text",
        "start-interval": "text",
        "retries": "text",
    },
}


@dataclass(frozen=True)
class Flags:
    """An instruction's flags, checked, in the order of the file."""

    instruction: Instruction
    given: tuple[Flag, ...]

    def find(self, name: str) -> Flag | None:
        """The flag of that name, where it is given."""
        return next((flag for flag in self.given if flag.name == name), None)

    def all(self, name: str) -> tuple[Flag, ...]:
        """Every flag of that name: some can be given more than once."""
        return tuple(flag for flag in self.given if flag.name == name)

    def text(self, name: str) -> str:
        """Its value; "" when it is not given."""
        flag = self.find(name)
        return (flag.value or "") if flag else ""

    def truth(self, name: str) -> bool | None:
        """Whether it says yes; None when it is not given."""
        flag = self.find(name)
        return None if flag is None else (flag.value or "true").lower() == "true"


def flag_error(instruction: Instruction, flag: Flag, text: str, hint: str = "") -> DockerfileError:
    """The error that something is wrong with one flag."""
    return DockerfileError(instruction.file, flag.line, flag.column, text, hint)


def parse_flags(instruction: Instruction) -> Flags:
    """Check an instruction's flags. Raises DockerfileError: unknown, given twice, without or with a wrong value."""
    if not instruction.flags:
        return Flags(instruction, ())
    kinds = FLAGS.get(instruction.keyword, {})
    seen: set[str] = set()
    for flag in instruction.flags:
        kind = kinds.get(flag.name)
        if kind is None:
            raise flag_error(
                instruction, flag, f"unknown flag: {flag.name}", _hint(instruction.keyword, flag.name)
            )
        if flag.name in seen and kind != "list":
            raise flag_error(
                instruction, flag, f"duplicate flag specified: {flag.name}", "give it once, with one value"
            )
        seen.add(flag.name)
        _check_value(instruction, flag, kind)
    return Flags(instruction, instruction.flags)


def _check_value(instruction: Instruction, flag: Flag, kind: Kind) -> None:
    if kind != "truth":
        if flag.value is None:
            raise flag_error(
                instruction, flag, f"missing a value on flag: {flag.name}", f"write --{flag.name}=VALUE"
            )
        return
    if flag.value == "":
        raise flag_error(instruction, flag, f"missing a value on flag: {flag.name}", f"write --{flag.name}")
    if flag.value is not None and flag.value.lower() not in ("true", "false"):
        text = f"expecting boolean value for flag {flag.name}, not: {flag.value}"
        raise flag_error(instruction, flag, text, f"write --{flag.name} or --{flag.name}=false")


def _hint(keyword: str, name: str) -> str:
    known = FLAGS.get(keyword, {})
    if hint := near(name, tuple(known)):
        return hint
    if others := [other for other in FLAGS if name in FLAGS[other]]:
        return f"--{name} is a flag of {' and '.join(others)}"
    if not known:
        return f"{keyword} has no flags; an argument that begins with -- follows a word of its own, --"
    return f"{keyword} has --{', --'.join(known)}"
