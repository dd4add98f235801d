"""docs/dockerfiles.md: the outcome of every case, and the differences that are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.dockerfiles import cases_add, cases_config, cases_copy, cases_run, cases_stages
from tests.dockerfiles.harness import Outcome
from tests.dockerfiles.listed import LISTED

_HEAD = """# Dockerfiles: built by Docker, and here

Written by `D2N_WRITE_DOCKERFILES=1 ./run-tests --lab tests/dockerfiles`. Each case is a Dockerfile with its context
(tests/dockerfiles/cases_*.py). It is built by `docker build` (Docker 26.1 with BuildKit, its own frontend), and by
`docker2nspawn convert dockerfile:…`, from the same base image. Then the two are compared:

- **config**: User, Env with its order, Entrypoint, Cmd, WorkingDir, StopSignal, Volumes, ExposedPorts, Labels,
  Healthcheck, Shell, OnBuild, Author;
- **tree**: every name, its kind, mode, owner, content or target, device numbers, extended attributes, which names are
  the same file, and its time: either both have the time of the source, or both were made by the build.

*equal*: in all of that. *refused*: Docker refuses it, and so do we, for the same reason. *documented*: Docker 26.1's
own frontend lacks it, and its documentation decides. Numbers are the differences that are meant, listed below; the
first of them is not shown, since it depends on which of two comes first in Docker.
"""

_PARTS = (
    ("RUN", cases_run.CASES),
    ("COPY", cases_copy.CASES),
    ("ADD, WORKDIR, .dockerignore", cases_add.CASES),
    ("Config, ONBUILD", cases_config.CASES),
    ("ARG, stages, syntax", cases_stages.CASES),
)


def render(outcomes: Mapping[str, Outcome], values: int) -> str:
    """The whole document; `values` is how many expressions of variables are compared as well."""
    lines = [_HEAD, _summary(outcomes.values(), values)]
    for title, cases in _PARTS:
        lines += [f"## {title}\n", "| case | what | |", "|---|---|---|"]
        lines += [f"| {case.name} | {_cell(case.what)} | {_shown(outcomes[case.name])} |" for case in cases]
        lines.append("")
    lines += ["## Differences that are meant\n", "| | what | why |", "|---|---|---|"]
    for number, listed in enumerate(LISTED, 1):
        lines.append(f'| <a id="d{number}"></a>{number} | {_cell(listed.what)} | {_cell(listed.reason)} |')
    return "\n".join(lines) + "\n"


def _summary(outcomes: Iterable[Outcome], values: int) -> str:
    shown = [_shown(outcome) for outcome in outcomes]
    counts = {word: shown.count(word) for word in ("equal", "refused", "documented", "**FAIL**")}
    listed = len(shown) - sum(counts.values())
    text = f"{len(shown)} cases: {counts['equal']} equal, {counts['refused']} refused by both, "
    text += f"{counts['documented']} as documented, {listed} with a difference that is meant"
    text += f", {counts['**FAIL**']} failed" if counts["**FAIL**"] else ""
    return f"{text}.\nThe values of {values} expressions ($x, ${{x:-y}}, quotes, escapes, …) are Docker's as well.\n"


def _shown(outcome: Outcome) -> str:
    if outcome.failures:
        return "**FAIL**"
    reasons = {reason for _, reason in outcome.differences if reason is not None and not reason.sometimes}
    numbers = sorted(LISTED.index(reason) + 1 for reason in reasons)
    if numbers:
        return " ".join(f"[{number}](#d{number})" for number in numbers)
    if outcome.case.documented is not None:
        return "documented"
    return "equal" if outcome.case.fails is None else "refused"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
