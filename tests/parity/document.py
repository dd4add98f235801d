"""docs/parity.md: what was compared, and what came out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.parity.cases import CASES, Case
from tests.parity.differences import Row
from tests.parity.harness import Facts
from tests.parity.listed import LISTED, ROWS, Difference

# Rows that the engine alone decides, not the host.
_OF_THE_ENGINE = frozenset({"syscalls", "sockets", "capabilities", "masked", "privileges", "shm", "etc"})

HEADING = """# Run-time parity

The same images and containers were run by `docker run` (Docker 26.1, cgroup v2) and, converted, by `machinectl start`
on booted hosts with systemd 252 (Debian 12), 257 (Debian 13) and 262. A static program printed what it sees of itself,
and what became of what it tried; each fact is compared. This file is written by tests/parity (docs/testing.md), which
fails when a fact differs that is not listed here, and when a listed one no longer does.

"""


def render(rows: list[Row], docker: Facts, older: Facts) -> str:
    """The whole document. Nothing in it changes from run to run as long as the outcomes are the same."""
    versions = sorted({row.version for row in rows})
    parts = [HEADING, _by_row(rows, versions), _by_case(rows, versions), _listed()]
    parts.append(_engines(docker, older))
    failed = [row for row in rows if row.failed]
    if failed:
        parts.append(_failed(failed))
    return "".join(parts).rstrip() + "\n"


def _by_row(rows: list[Row], versions: list[str]) -> str:
    names = dict.fromkeys([*ROWS, *sorted({row.row for row in rows})])
    outcomes = {name: [row for row in rows if row.row == name] for name in names}
    what = {name: ROWS.get(name, "") for name in names}
    return _table("## What is compared\n", "| row | what it holds |", what, outcomes, versions) + "\n\n"


def _by_case(rows: list[Row], versions: list[str]) -> str:
    what = {case.name: _what(case) for case in CASES}
    outcomes = {name: [row for row in rows if row.case == name and _is_own(row)] for name in what}
    table = _table("## The images and containers\n", "| name | what it is |", what, outcomes, versions)
    return f"{table}\n\nDifferences that all of them have are in the first table only.\n\n"


def _table(
    title: str,
    head: str,
    what: Mapping[str, str],
    outcomes: Mapping[str, list[Row]],
    versions: list[str],
) -> str:
    """A line for each name: what it is, and the outcome on each version."""
    lines = [title, f"{head} {' | '.join(versions)} |", "|---|---|" + "---|" * len(versions)]
    for name, rows in outcomes.items():
        cells = [_outcome(row for row in rows if row.version == version) for version in versions]
        lines.append(f"| {name} | {what[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_own(row: Row) -> bool:
    return row.reason is None or row.reason.cases != ".*"


def _what(case: Case) -> str:
    return case.what.replace("|", "\\|")


def _outcome(rows: Iterable[Row]) -> str:
    """One cell: equal, the numbers of the reasons why not, FAIL."""
    rows = list(rows)
    if not rows:
        return "–"
    if any(row.failed for row in rows):
        return "**FAIL**"
    reasons = sorted(
        {LISTED.index(row.reason) + 1 for row in rows if row.reason and not row.reason.sometimes}
    )
    return "equal" if not reasons else " ".join(f"[{number}](#d{number})" for number in reasons)


def _listed() -> str:
    lines = ["## Listed differences\n", "| | what differs | on | why |", "|---|---|---|---|"]
    for number, listed in enumerate(LISTED, 1):
        lines.append(
            f'| <a id="d{number}"></a>{number} | {_fact(listed)} | {", ".join(listed.versions)} | {listed.reason} |'
        )
    return "\n".join(lines) + "\n\n"


def _engines(docker: Facts, older: Facts) -> str:
    """What Debian 12's Docker does otherwise than the one that is compared with: the machines are like the newer."""
    lines = [
        "## Docker 20.10\n",
        "Debian 12's own Docker differs from 26.1 in this:\n",
        "| fact | 20.10 | 26.1 |",
    ]
    lines.append("|---|---|---|")
    for row, key in sorted(docker.keys() & older.keys()):
        new, old = docker[row, key], older[row, key]
        if row in _OF_THE_ENGINE and new != old:
            lines.append(f"| {row} {key} | {_cell(old)} | {_cell(new)} |")
    return "\n".join(lines) + "\n\n"


def _fact(listed: Difference) -> str:
    cases = "" if listed.cases == ".*" else f" ({listed.cases.replace('|', ', ')})"
    return f"{listed.what}{cases}"


def _failed(rows: list[Row]) -> str:
    """Equal failures of several cases and versions are one line."""
    together: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row.row, row.key, row.docker, row.machine), []).append(row)
    lines = ["## Failures\n", "| fact | Docker | machine | on | in |", "|---|---|---|---|---|"]
    for (name, key, docker, machine), found in sorted(together.items()):
        versions = ", ".join(sorted({row.version for row in found}))
        cases = sorted({row.case for row in found})
        where = cases[0] if len(cases) == 1 else f"{cases[0]} and {len(cases) - 1} more"
        lines.append(f"| {name} {_cell(key)} | {_cell(docker)} | {_cell(machine)} | {versions} | {where} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")[:120]
