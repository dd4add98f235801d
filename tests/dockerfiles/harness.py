"""Builds the cases with Docker and here, and tells case by case in what the two differ."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tests.dockerfiles import expressions
from tests.dockerfiles.built import Built, Difference, differences, from_docker
from tests.dockerfiles.case import Case
from tests.dockerfiles.cases import CASES
from tests.dockerfiles.here import build_here
from tests.dockerfiles.listed import Listed, reason_for
from tests.dockerfiles.place import Place, docker_build, write_context

_THREADS = 4  # a build waits more than it works


@dataclass(frozen=True)
class Outcome:
    """A case: what Docker made of it, what we did, and each difference with its reason, None where it is none."""

    case: Case
    docker: Built
    ours: Built
    differences: tuple[tuple[Difference, Listed | None], ...]

    @property
    def failures(self) -> tuple[Difference, ...]:
        return tuple(difference for difference, reason in self.differences if reason is None)


def each(action: Callable[[Case], Built], cases: Iterable[Case]) -> dict[str, Built]:
    """Do it with every case, some at a time; a case waits for those whose images it is made from."""
    begun: dict[str, Future[Built]] = {}

    def after(case: Case) -> Built:
        for name in case.after:
            begun[name].result()
        return action(case)

    with ThreadPoolExecutor(_THREADS) as pool:
        for case in cases:
            begun[case.name] = pool.submit(after, case)
        return {name: future.result() for name, future in begun.items()}


def run_docker(place: Place, cases: Iterable[Case]) -> dict[str, Built]:
    """What Docker makes of them; of what its own frontend does not know, nothing."""

    def one(case: Case) -> Built:
        write_context(place, case)
        if case.documented is not None:
            return Built()
        done = docker_build(place, case)
        if done.returncode != 0:
            assert "failed to solve" in done.stderr or case.fails, done.stderr
            return Built(error=done.stderr)
        return from_docker(place, f"equal/{case.name}")

    return each(one, cases)


def run_here(place: Place, work: Path, cases: Iterable[Case], *, chroot: bool = False) -> dict[str, Built]:
    """What we make of them, from the images of the same Docker."""
    state = work / f"equal-{'chroot' if chroot else 'nspawn'}"
    state.mkdir()
    with mock.patch.dict(os.environ, DOCKER_HOST=place.host.docker):
        return each(lambda case: build_here(place, state, case, chroot=chroot), cases)


def compare(docker: Mapping[str, Built], ours: Mapping[str, Built]) -> dict[str, Outcome]:
    """The outcome of every case."""
    return {
        name: Outcome(
            CASES[name],
            docker[name],
            ours[name],
            tuple((found, reason_for(name, found)) for found in differences(docker[name], ours[name])),
        )
        for name in docker
    }


def ask_for_values(place: Place, texts: Iterable[str]) -> dict[str, str | None]:
    """What BuildKit makes of expressions; None: it refuses them. All that it takes are asked for at once."""
    texts = list(texts)
    answer = _ask(place, texts)
    if answer is not None:
        return dict(zip(texts, answer, strict=True))
    if len(texts) == 1:
        return {texts[0]: None}
    half = len(texts) // 2
    return {**ask_for_values(place, texts[:half]), **ask_for_values(place, texts[half:])}


def ask_each(place: Place, texts: Iterable[str]) -> dict[str, str | None]:
    """The same one by one, as is quicker where BuildKit refuses most."""
    texts = list(texts)
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = pool.map(lambda each: _ask(place, [each[1]], f"expression-{each[0]}"), enumerate(texts))
        return {
            text: None if answer is None else answer[0] for text, answer in zip(texts, answers, strict=True)
        }


def _ask(place: Place, texts: list[str], name: str = "expressions") -> list[str] | None:
    context = place.context(name)
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(expressions.dockerfile(texts))
    tag = f"equal/{name}"
    done = place.docker("build", "-q", "-t", tag, place.seen(context), check=False)
    if done.returncode != 0:
        assert "failed to solve" in done.stderr, done.stderr  # and not: a daemon that has crashed
        return None
    shown = place.docker("inspect", "--format={{json .Config.Labels}}", tag).stdout
    labels = json.loads(shown)
    return [labels[f"e{number}"] for number in range(len(texts))]
