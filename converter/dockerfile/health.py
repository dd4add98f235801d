"""HEALTHCHECK: its options, and its command."""

from __future__ import annotations

import re

from converter.dockerfile.flags import Flags, flag_error, parse_flags
from converter.dockerfile.model import Instruction
from converter.dockerfile.parser import near
from converter.dockerfile.values import parse_duration
from converter.image.model import Healthcheck

_SHORTEST = 1_000_000  # ns: Docker's container.MinimumDuration


def parse_healthcheck(instruction: Instruction) -> Healthcheck:
    """Read a HEALTHCHECK. Nothing of it is expanded. Raises DockerfileError."""
    if not instruction.words:
        raise instruction.error("HEALTHCHECK requires at least one argument", "write HEALTHCHECK CMD COMMAND")
    kind, *command = instruction.words
    if kind.upper() == "NONE":
        if command and command != [""]:
            raise instruction.error("HEALTHCHECK NONE takes no arguments", "write HEALTHCHECK NONE")
        return Healthcheck(("NONE",))
    flags = parse_flags(instruction)
    if kind.upper() != "CMD":
        hint = near(kind, ("CMD", "NONE")) or "write HEALTHCHECK CMD COMMAND"
        raise instruction.error(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)', hint)
    if not command:
        raise instruction.error("Missing command after HEALTHCHECK CMD", "write HEALTHCHECK CMD COMMAND")
    return Healthcheck(
        test=("CMD", *command) if instruction.is_json else ("CMD-SHELL", " ".join(command)),
        interval=_duration(instruction, flags, "interval"),
        timeout=_duration(instruction, flags, "timeout"),
        start_period=_duration(instruction, flags, "start-period"),
        start_interval=_duration(instruction, flags, "start-interval"),
        retries=_retries(instruction, flags),
    )


def _duration(instruction: Instruction, flags: Flags, name: str) -> int:
    flag = flags.find(name)
    if flag is None or not flag.value:
        return 0
    try:
        value = parse_duration(flag.value)
    except ValueError as error:
        raise flag_error(instruction, flag, str(error), "write it like 30s or 1m30s") from None
    if value and value < _SHORTEST:
        text = f'Interval "{name}" cannot be less than 1ms'
        raise flag_error(instruction, flag, text, "write it like 30s or 1m30s")
    return value


def _retries(instruction: Instruction, flags: Flags) -> int:
    flag = flags.find("retries")
    if flag is None or not flag.value:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", flag.value) or not -(1 << 31) <= int(flag.value) < 1 << 31:
        raise flag_error(instruction, flag, f"--retries is not a number: {flag.value}", "write --retries=3")
    if int(flag.value) < 0:
        raise flag_error(
            instruction, flag, f"--retries cannot be negative ({flag.value})", "write --retries=3"
        )
    return int(flag.value)
