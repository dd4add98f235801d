"""A batch beside one conversion after the other: time, disk, memory, and the same trees at the end."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import fleet, loop
from benchmarks.batch_report import Disk, Growth, Measured, written
from benchmarks.cache import CACHE
from benchmarks.fleet import Fleet, Member
from benchmarks.group import group
from benchmarks.image import TAG
from benchmarks.measure import Cost, Failed, measure, median, remove
from benchmarks.memory import footprint
from benchmarks.registry import serving
from benchmarks.rounds import place
from benchmarks.same import MACHINES, require_same
from benchmarks.tools import PROGRAM

_SMALL_FOR_EACH = 25  # small images for each of the others
_ROOM = 40 << 30  # bytes that the trees of one turn may need; they are compared at its end
CONVERT, BATCH, PEERS = "convert", "batch", "peers"


@dataclass(frozen=True)
class _Run:
    """What every measurement needs: the images, where the registry is, a place for lists and logs."""

    fleet: Fleet
    address: str
    scratch: Path

    def scripts(self) -> Mapping[str, str]:
        """bash commands by what they stand for; "$ROOT" is where the machines go."""
        members = self.fleet.members
        return {
            CONVERT: "\n".join(
                f"{PROGRAM} convert {shlex.quote(self.fleet.source(one, self.address))} "
                f'--name {one.name} --root "$ROOT"'
                for one in members
            ),
            BATCH: f'{PROGRAM} batch {shlex.quote(str(self.listed(len(members))))} --root "$ROOT"',
            PEERS: "\n".join(self._peer(one) for one in members if one.form == "docker"),
        }

    def listed(self, count: int) -> Path:
        """The list of the first images."""
        path = self.scratch / f"{count}.list"
        lines = [f"{self.fleet.source(one, self.address)} {one.name}\n" for one in self.fleet.members[:count]]
        path.write_text("".join(lines))
        return path

    def _peer(self, member: Member) -> str:
        """All images into one layout: so skopeo, too, fetches a layer that several share but once."""
        source = f"docker://{self.address}/{member.repository}:{TAG}"
        copy = f"skopeo --insecure-policy copy --quiet --src-tls-verify=false {source}"
        layout = f'"$ROOT/layout:{member.name}"'
        return f'{copy} "oci:"{layout}\numoci raw unpack --image {layout} "$ROOT/{member.name}"'


def report(target: Path, count: int, repeat: int, machine: str) -> str:
    """Measure everything and write the tables. `count`: how many images; 25 times as many small ones."""
    large, small = fleet.get("fleet", count), fleet.get("small", count * _SMALL_FOR_EACH)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="batch-") as name:
        scratch = Path(name)
        with serving(large.storage, scratch) as address:
            costs, disk = _side_by_side(_Run(large, address, scratch), target, repeat)
        with serving(small.storage, scratch) as address:
            growth = _growth(_Run(small, address, scratch), target)
    return written(large, costs, disk, growth, repeat, machine)


def _side_by_side(run: _Run, target: Path, repeat: int) -> tuple[Measured, Disk]:
    """Every turn measures all on the disk of the cache and on btrfs, then compares the trees."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    names = [member.name for member in run.fleet.members]
    disk: list[Mapping[str, int]] = []
    for turn in range(repeat):

        def measured(kind: str, what: str, root: Path, turn: int = turn) -> None:
            costs.setdefault((kind, what), []).append(_measured(run, kind, what, root, turn))

        alone = place(target, f"{CONVERT}-{turn}", _ROOM)
        together = place(target, f"{BATCH}-{turn}", 0)
        measured("disk", CONVERT, alone)
        measured("disk", BATCH, together)
        require_same(alone, together, names)
        measured("disk", PEERS, place(target, f"{PEERS}-{turn}", 0))
        for what in (CONVERT, PEERS):
            with loop.btrfs(CACHE) as root:
                measured("btrfs", what, root)
        with loop.btrfs(CACHE) as root:
            before = loop.used(root)
            measured("btrfs", BATCH, root)
            after = loop.used(root)
            disk.append({kind: size - before.get(kind, 0) for kind, size in after.items()})
            require_same(alone, root, names)
    return {key: median(several) for key, several in costs.items()}, disk[-1]


def _measured(run: _Run, kind: str, what: str, root: Path, turn: int) -> Cost:
    """With a cold cache, until all is on the disk."""
    script = f'echo $$ >"$GROUP"\n{run.scripts()[what]}\nsync --file-system "$ROOT"'
    with group() as ours:
        cost = measure(script, environment={"ROOT": str(root), "GROUP": str(ours.entry)})
        cost = replace(cost, cpu=ours.cpu())  # a batch's workers are not children that it waits for
    print(f"benchmarks: batch {turn + 1} {kind} {what}: {cost.wall:.1f} s", file=sys.stderr, flush=True)
    return cost


def _growth(run: _Run, target: Path) -> list[Growth]:
    """A quarter, a half and all of the small images, each into a root of its own."""
    members = run.fleet.members
    found = []
    for count in (len(members) // 4, len(members) // 2, len(members)):
        root = place(target, f"small-{count}")
        html, log = run.scratch / f"{count}.html", run.scratch / f"{count}.log"
        command: list[str | Path] = [PROGRAM, "batch", run.listed(count), "--root", root, "--report", html]
        taken = footprint(command, log)
        made = sum((root / MACHINES / member.name / "srv/app").is_dir() for member in members[:count])
        if made != count:
            raise Failed(f"{made} of {count} small machines were made\n{log.read_text()[-4000:]}")
        found.append(Growth(count, taken, html.stat().st_size))
        print(f"benchmarks: {count} small images: {taken.wall:.1f} s", file=sys.stderr, flush=True)
        remove(root)
    return found
