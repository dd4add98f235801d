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
    sometimes: bool = False
    """It depends on which of two comes first in Docker; so it may also not occur, and no case is said to have it."""


LISTED: tuple[Listed, ...] = (
    Listed(
        "time of a directory that comes from the context, or in which Docker has mounted something",
        "tree mtime .*/",
        "Docker keeps a source's time for some of these directories and gives others the time of the build; "
        "here they all have the source's, and what is mounted for RUN leaves no trace",
        docker="new",
        sometimes=True,
    ),
    Listed(
        "COPY --link upon what the base has",
        "tree .* (soft|real|there)(/.*)?",
        "the Docker Engine's own storage (overlay2) cannot merge layers, so it takes --link as a COPY without it; "
        "here it does what is documented: links on the way are replaced, and directories are made anew",
        cases="copy-link",
    ),
    Listed(
        "--chown with a name upon an empty image",
        "outcome",
        "Docker 26.1 takes names that are not in /etc/passwd for root, but fails where the image is empty; "
        "here it is root in both",
        cases="copy-chown-scratch-name",
        ours="built",
    ),
    Listed(
        "ONBUILD COPY --from a stage of the Dockerfile that the trigger runs in",
        "outcome",
        "Docker 26.1 finds no stage for a trigger; newer versions do, and so do we",
        cases="onbuild-copy-from-used",
        ours="built",
    ),
    Listed(
        "names in /dev while RUN runs",
        "tree content dev-names",
        "systemd-nspawn has char and net there as well",
        cases="run-proc-sys",
    ),
    Listed(
        "a file that .dockerignore excludes, excepts, and excludes again by its directory",
        "tree content all/vendor/v.txt",
        "Docker 26.1 takes the name and loses the content: the file is empty; here it has its content",
        cases="ignore-again",
        docker="b''",
    ),
    Listed(
        "--target by number",
        "outcome",
        "only Docker's older builder takes numbers; here both names and numbers mean a stage",
        cases="stages-target-number",
        ours="built",
    ),
)


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


def is_decided_otherwise(case: str) -> bool:
    """Is it meant that only one of the two builds this case?"""
    return any(listed.difference == "outcome" and re.fullmatch(listed.cases, case) for listed in LISTED)
