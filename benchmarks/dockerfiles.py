"""How long Dockerfiles take: translating many in one process, and building one again, `docker build` beside it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import building
from benchmarks.building import DOCKER, OURS, Costs
from benchmarks.cache import CACHE
from benchmarks.measure import Cost, measure, median, remove

_COUNT = 1000
_BUILDS = {
    "first": "the first time, the base image there",
    "again": "again, nothing changed",
    "edited": "again, the last line edited",
}


def report(repeat: int, machine: str) -> str:
    """Measure both and write the tables."""
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="dockerfiles-") as place:
        scratch = Path(place)
        translated = median([_translate(scratch / f"translated-{turn}") for turn in range(repeat)])
        costs, why_not = building.costs(scratch, repeat)
    head = f"# Dockerfiles\n\nWritten by `benchmarks/run --dockerfiles`, on {machine}. Medians of {repeat}.\n"
    notes = f"Missing here: docker build: {why_not}.\n" if why_not else _NOTES
    return "\n".join([head, _translation(translated), _builds(costs), notes])


_NOTES = """\
The page cache is warm. CPU time is that of the client alone for Docker, whose builder is a daemon. docker2nspawn's
builds end with the machine's tree put together and on the disk, with its settings; Docker's end with an image, of which
a container is still to be made.
"""


def _translate(directory: Path) -> Cost:
    module = [sys.executable, "-m", "benchmarks.translating", str(directory)]
    subprocess.run(module, check=True)
    cost = measure(shlex.join([*module, str(_COUNT)]), environment={}, cold=False)
    print(f"benchmarks: {_COUNT} Dockerfiles translated: {cost.wall:.1f} s", file=sys.stderr, flush=True)
    remove(directory)
    return cost


def _translation(cost: Cost) -> str:
    return "\n".join(
        [
            "## Translation",
            "",
            f"{_COUNT:,} Dockerfiles (those of fixtures/dockerfiles, again and again) in one process: read, evaluated,",
            "and written as scripts, mkosi trees and settings files, with what they COPY.",
            "",
            "| Dockerfiles | wall s | ms each | CPU s | peak MB |",
            "|--:|--:|--:|--:|--:|",
            f"| {_COUNT:,} | {cost.wall:.1f} | {cost.wall / _COUNT * 1e3:.1f} | {cost.cpu:.1f} "
            f"| {cost.peak / 1e6:.0f} |",
            "",
        ]
    )


def _builds(costs: Costs) -> str:
    lines = [
        "## Building",
        "",
        building.ABOUT,
        "",
        "| build | docker2nspawn, wall s | docker build, wall s | ratio | docker2nspawn, CPU s |",
        "|---|--:|--:|--:|--:|",
    ]
    for what, label in _BUILDS.items():
        ours, docker = costs[OURS, what], costs.get((DOCKER, what))
        other = [f"{docker.wall:.2f}", f"{ours.wall / docker.wall:.2f}"] if docker else ["–", "–"]
        lines.append(f"| {' | '.join([label, f'{ours.wall:.2f}', *other, f'{ours.cpu:.2f}'])} |")
    return "\n".join([*lines, ""])
