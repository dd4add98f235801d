"""Runs tools over inputs in turns, and checks that each has made what it should have made."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cache import Input
from benchmarks.engine import Engine
from benchmarks.measure import Cost, Failed, count_entries, measure, median, remove
from benchmarks.tools import Job, Tool

# By name of the input and of the tool.
Costs = dict[tuple[str, str], Cost]

# What a tool may add to an image: Docker the places it mounts over, docker2nspawn what nspawn needs.
_MAY_ADD = 60

_ROOM = 12 << 30  # bytes that a tool may need
# Seconds: ext4 does not use an inode again for up to six minutes after its deletion (fs/ext4/ialloc.c,
# recently_deleted), and until then looks at each of them whenever it makes a file, whoever makes it.
_SETTLE = 370


def rounds(
    images: Sequence[Input], tools: Sequence[Tool], target: Path, repeat: int, docker: Engine | None = None
) -> Costs:
    """Measure each tool with each image, `repeat` times in turns; medians."""
    environment = docker.environment if docker else {}
    containers = {one.name: docker.load(one) if docker else "" for one in images}
    costs: dict[tuple[str, str], list[Cost]] = {}
    for turn in range(repeat):
        for one in images:
            for tool in tools:
                where = place(target, f"{one.name}-{turn}-{tool.name}")
                job = Job(one, where, containers[one.name])
                cost = measure(tool.script(job), environment=environment)
                _check(one, tool, where)
                costs.setdefault((one.name, tool.name), []).append(cost)
                shown = f"{one.name} {turn + 1}/{repeat} {tool.name}: {cost.wall:.1f} s"
                print(f"benchmarks: {shown}", file=sys.stderr, flush=True)
    return {key: median(several) for key, several in costs.items()}


def place(target: Path, name: str, room: int = _ROOM) -> Path:
    """A new directory. Earlier trees stay as long as there is `room` (bytes): see _SETTLE."""
    target.mkdir(exist_ok=True)
    if shutil.disk_usage(target).free < room:
        remove(target)
        target.mkdir()
        print(f"benchmarks: room made; waiting {_SETTLE} s for the file system", file=sys.stderr, flush=True)
        time.sleep(_SETTLE)
    made = target / name
    made.mkdir()
    return made


def _check(one: Input, tool: Tool, target: Path) -> None:
    """A tool that leaves work out must not count as fast."""
    expected, found = one.facts.entries, count_entries(target / tool.tree)
    if not expected <= found <= expected + _MAY_ADD:
        raise Failed(f"{tool.name} made {found} entries of {one.name}, which has {expected}")
