"""What can be told of each instruction alone, before any stage is evaluated (BuildKit's instructions/parse.go)."""

from __future__ import annotations

import re

from converter.dockerfile.copies import check_copy
from converter.dockerfile.flags import parse_flags
from converter.dockerfile.health import parse_healthcheck
from converter.dockerfile.model import DockerfileError, Instruction
from converter.dockerfile.runs import check_run

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_SOME = {  # at least one argument, and how it is written
    "ARG": "ARG NAME=DEFAULT",
    "ENV": "ENV NAME=value",
    "EXPOSE": "EXPOSE 80/tcp",
    "LABEL": "LABEL NAME=value",
    "ONBUILD": "ONBUILD RUN COMMAND",
    "SHELL": 'SHELL ["/bin/bash", "-c"]',
    "VOLUME": "VOLUME /DIRECTORY",
}
_ONE = {
    "MAINTAINER": "MAINTAINER NAME",
    "STOPSIGNAL": "STOPSIGNAL SIGTERM",
    "USER": "USER NAME",
    "WORKDIR": "WORKDIR /DIRECTORY",
}


def check(instruction: Instruction) -> None:
    """Check flags, the number of arguments and their form. Raises DockerfileError."""
    keyword, words = instruction.keyword, instruction.words
    if keyword in _SOME and not words:
        raise instruction.error(f"{keyword} requires at least one argument", f"write {_SOME[keyword]}")
    if keyword in _ONE and len(words) != 1:
        raise instruction.error(f"{keyword} requires exactly one argument", f"write {_ONE[keyword]}")
    match keyword:
        case "RUN":
            check_run(instruction)
        case "COPY" | "ADD":
            check_copy(instruction)
        case "HEALTHCHECK":
            parse_healthcheck(instruction)
        case _:
            parse_flags(instruction)
    match keyword:
        case "FROM":
            stage_name(instruction)
        case "ENV" | "LABEL" if "" in words[::2]:
            raise instruction.error(f"{keyword} names can not be blank", f"write {_SOME[keyword]}")
        case "ARG" if any(word.startswith("=") for word in words):
            raise instruction.error("ARG names can not be blank", "write ARG NAME=DEFAULT")
        case "VOLUME" if any(not word.strip() for word in words):
            raise volume_error(instruction)
        case "SHELL" if not instruction.is_json:
            raise instruction.error(
                "SHELL requires the arguments to be in JSON form", f"write {_SOME['SHELL']}"
            )
        case "ONBUILD" if instruction.trigger:
            check(instruction.trigger)


def stage_name(instruction: Instruction) -> str | None:
    """The name that a FROM gives, in lower case. Raises DockerfileError."""
    words = instruction.words
    if len(words) == 1:
        return None
    if len(words) != 3 or words[1].lower() != "as":
        raise instruction.error("FROM requires either one or three arguments", "write FROM IMAGE AS NAME")
    name = words[2].lower()
    if not _STAGE_NAME.fullmatch(name):
        text = (
            f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
        )
        raise instruction.error(text, "a name is letters, digits, '-', '_' and '.'")
    return name


def volume_error(instruction: Instruction) -> DockerfileError:
    """VOLUME with nothing, or with variables that come to nothing."""
    return instruction.error("VOLUME specified can not be an empty string", "write VOLUME /DIRECTORY")
