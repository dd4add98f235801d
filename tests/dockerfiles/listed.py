"""The differences that are meant, each with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.dockerfiles.built import Difference


@dataclass(frozen=True)
class Listed:
    """A difference that may be, as regular expressions over the whole; `what` is for people."""

    what: str
    difference: str
    reason: str
    cases: str = ".*"
    docker: str = ".*"
    ours: str = ".*"


LISTED: tuple[Listed, ...] = ()


def reason_for(case: str, difference: Difference) -> Listed | None:
    """The first listed difference that covers this one."""
    for listed in LISTED:
        if (
            re.fullmatch(listed.cases, case)
            and re.fullmatch(listed.difference, difference.what, re.DOTALL)
            and re.fullmatch(listed.docker, difference.docker, re.DOTALL)
            and re.fullmatch(listed.ours, difference.ours, re.DOTALL)
        ):
            return listed
    return None
