"""Errors that point at one word or flag of an instruction."""

from __future__ import annotations

import re

from converter.dockerfile.model import DockerfileError, Instruction


def error_at_word(instruction: Instruction, word: str, text: str, hint: str = "") -> DockerfileError:
    """At `word`, where it stands as it is in the instruction; else, as when it comes of a variable, at its keyword."""
    found = re.compile(rf"""(?<=[\s"]){re.escape(word)}(?=[\s",]|$)""").search if word else None
    indent = len(instruction.text) - len(instruction.text.lstrip())
    for number, line in enumerate(instruction.text.split("\n")):
        if found is None or line.lstrip().startswith("#"):
            continue
        if match := found(line):
            before = (
                instruction.column - 1 - indent if number == 0 else 0
            )  # a trigger's text begins where it does
            place = instruction.line + number, before + match.start() + 1
            return DockerfileError(instruction.file, *place, text, hint)
    return instruction.error(text, hint)


def error_at_flag(instruction: Instruction, name: str, text: str, hint: str = "") -> DockerfileError:
    """At the flag of this name, without its dashes."""
    for flag in instruction.flags:
        if flag.name == name:
            return DockerfileError(instruction.file, flag.line, flag.column, text, hint)
    return instruction.error(text, hint)
