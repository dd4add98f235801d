"""What `docker build` makes of a Dockerfile is what we make of it; docs/dockerfiles.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lab
from tests.dockerfiles import built, cases_run, document, expressions, harness, place
from tests.dockerfiles.built import Built
from tests.dockerfiles.case import DEBIAN
from tests.dockerfiles.cases import CASES
from tests.dockerfiles.harness import Outcome
from tests.dockerfiles.listed import LISTED, is_decided_otherwise
from tests.dockerfiles.place import Place

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

_DOCUMENT = Path(__file__).parents[2] / "docs/dockerfiles.md"
_IN_CHROOT = [case.name for case in cases_run.CASES if DEBIAN not in str(case.dockerfile)]
_WRITE = os.environ.get("D2N_WRITE_DOCKERFILES") == "1"


@pytest.fixture(scope="session")
def docker_place(work: Path, systemd_host: lab.Host) -> Iterator[Place]:
    with place.ready(work, systemd_host) as ready:
        yield ready


@pytest.fixture(scope="session")
def docker(docker_place: Place) -> dict[str, Built]:
    return harness.run_docker(docker_place, CASES.values())


@pytest.fixture(scope="session")
def outcomes(docker: dict[str, Built], docker_place: Place, work: Path) -> dict[str, Outcome]:
    return harness.compare(docker, harness.run_here(docker_place, work, CASES.values()))


@pytest.fixture(scope="session")
def chroot_outcomes(docker: dict[str, Built], docker_place: Place, work: Path) -> dict[str, Outcome]:
    """RUN without systemd-nspawn, of the cases that are about RUN and need no large base."""
    return harness.compare(
        {name: docker[name] for name in _IN_CHROOT},
        harness.run_here(docker_place, work, [CASES[name] for name in _IN_CHROOT], chroot=True),
    )


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, outcomes: dict[str, Outcome]) -> None:
    _check(outcomes[name])


@pytest.mark.parametrize("name", _IN_CHROOT)
def test_case_in_chroot(name: str, chroot_outcomes: dict[str, Outcome]) -> None:
    _check(chroot_outcomes[name])


def _check(outcome: Outcome) -> None:
    case = outcome.case
    if case.fails is not None:
        assert outcome.docker.error is not None, "Docker builds it"
        assert case.fails.lower() in outcome.docker.error.lower()
        if not is_decided_otherwise(case.name):
            assert outcome.ours.error is not None, "we build it"
            assert case.fails.lower() in outcome.ours.error.lower()
    elif case.documented is None:
        assert outcome.docker.error is None, outcome.docker.error
    if case.documented is not None:
        assert outcome.ours.tree is not None, outcome.ours.error
        assert built.contents(outcome.ours.tree) == case.documented
    assert not outcome.failures, "\n".join(map(str, outcome.failures))


def test_listed_differences_still_occur(outcomes: dict[str, Outcome]) -> None:
    used = {reason for outcome in outcomes.values() for _, reason in outcome.differences}
    stale = [listed.what for listed in LISTED if listed not in used and not listed.sometimes]
    assert not stale, "take them out of tests/dockerfiles/listed.py:\n" + "\n".join(stale)


def test_configs_are_still_docker_s(outcomes: dict[str, Outcome]) -> None:
    """What test_config.py compares with without Docker."""
    said = {
        name: built.shown_config(outcome.docker.config)
        for name, outcome in outcomes.items()
        if outcome.docker.config is not None
    }
    if _WRITE:
        built.CONFIGS.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    assert json.loads(built.CONFIGS.read_text()) == said


def test_values_are_still_docker_s(docker_place: Place) -> None:
    """What test_expansion.py compares with without Docker."""
    kept = expressions.measured()
    taken = [text for text, value in kept.items() if value is not None or _WRITE]
    said = harness.ask_for_values(docker_place, taken)
    refused = harness.ask_each(docker_place, [text for text in kept if text not in said])
    if _WRITE:
        expressions.write(said)
        kept = said
    assert {**said, **refused} == kept


def test_document_says_so(outcomes: dict[str, Outcome]) -> None:
    text = document.render(outcomes, len(expressions.measured()))
    if _WRITE:
        _DOCUMENT.write_text(text)
    assert _DOCUMENT.read_text() == text, "write it anew: D2N_WRITE_DOCKERFILES=1"
