"""Compares facts, and knows which differences are meant: each with its reason, none that no longer occurs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.parity.harness import Facts, Results
from tests.parity.listed import LISTED, Difference

NONE = "(none)"
_END = ("end", "end")
_OF_THE_START = frozenset({"end", "start", "run", "conversion", "complaints", "exit"})


@dataclass(frozen=True)
class Row:
    """One fact of one case on one version, as seen in Docker and in the machine."""

    case: str
    version: str
    row: str
    key: str
    docker: str
    machine: str
    reason: Difference | None

    @property
    def equal(self) -> bool:
        return self.docker == self.machine

    @property
    def failed(self) -> bool:
        return not self.equal and self.reason is None

    def __str__(self) -> str:
        return f"{self.row} {self.key}: Docker {self.docker!r}, systemd {self.version} {self.machine!r} ({self.case})"


def reason_for(row: Row) -> Difference | None:
    """The first listed difference that covers this one."""
    for listed in LISTED:
        if (
            row.version in listed.versions
            and re.fullmatch(listed.fact, f"{row.row} {row.key}")
            and re.fullmatch(listed.cases, row.case)
            and re.fullmatch(listed.docker, row.docker, re.DOTALL)
            and re.fullmatch(listed.machine, row.machine, re.DOTALL)
        ):
            return listed
    return None


def compare(results: Results) -> list[Row]:
    """Every fact of every case on every version."""
    return [
        row
        for version, machines in results.machines.items()
        for case, machine in machines.items()
        for row in _compare_case(case, version, results.docker[case], machine)
    ]


def _compare_case(case: str, version: str, docker: Facts, machine: Facts) -> Iterator[Row]:
    facts = docker.keys() | machine.keys()
    if (_END in docker) != (_END in machine):
        facts = {fact for fact in facts if fact[0] in _OF_THE_START}  # one did not run: the rest says nothing
    for row, key in sorted(facts):
        seen = docker.get((row, key), NONE), machine.get((row, key), NONE)
        found = Row(case, version, row, key, *seen, None)
        yield found if found.equal else Row(case, version, row, key, *seen, reason_for(found))


def stale(rows: list[Row]) -> list[tuple[Difference, str]]:
    """Listed differences that did not occur, with the version that they were said to occur on."""
    used: Mapping[tuple[Difference, str], bool] = {
        (row.reason, row.version): True for row in rows if row.reason
    }
    return [
        (listed, version)
        for listed in LISTED
        for version in listed.versions
        if (listed, version) not in used and not listed.sometimes
    ]
