"""The tables of `benchmarks/run --batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.fleet import Fleet
from benchmarks.measure import Cost
from benchmarks.memory import Footprint

# By the file system ("disk", "btrfs") and by what was measured ("convert", "batch", "peers").
Measured = Mapping[tuple[str, str], Cost]
# Bytes in use by kind of data.
Disk = Mapping[str, int]


@dataclass(frozen=True)
class Growth:
    """A batch of so many small images; bytes of its report."""

    count: int
    footprint: Footprint
    report_bytes: int


_TOOLS = {
    "convert": "docker2nspawn convert, one after the other",
    "batch": "**docker2nspawn batch**",
    "peers": "skopeo copy; umoci raw unpack, one after the other",
}

_NOTES = """\
Before each measurement everything dirty is written out and the page cache dropped; it ends with everything on the disk
(`sync --file-system`). Each starts with an empty root, and so with an empty cache of the batch; on btrfs with a file
system made for it. The registry is on this machine, and so is the time it takes; that of its process is not in the CPU
time. skopeo copies all images into one layout, and so fetches a layer that several share once, too. After every
measurement of a batch all of its trees (kinds, modes, owners, times, links, attributes, contents) and settings are
compared with those that `convert` made; a difference ends the run.
"""

_SMALL_NOTES = """\
Memory is the largest sum over all processes, of samples 0.2 s apart: PSS counts a page that several share once, RSS for
each of them. The report is the HTML file.
"""


def written(
    images: Fleet, costs: Measured, disk: Disk, growth: Sequence[Growth], repeat: int, machine: str
) -> str:
    """The whole text."""
    head = f"# A batch\n\nWritten by `benchmarks/run --batch`, on {machine}. Medians of {repeat}.\n"
    own_kind = machine.rpartition(", ")[2]
    parts = [head, _about(images), _side_by_side(f"On {own_kind}", "disk", images, costs)]
    parts += [_side_by_side("On btrfs (a file, by a loop device)", "btrfs", images, costs), _NOTES]
    parts += [_disk(images, disk), _growth(growth)]
    return "\n".join(parts)


def _about(images: Fleet) -> str:
    forms = [member.form for member in images.members]
    bases = ", ".join(f"{name} ({size / 1e6:,.0f} MB)" for name, size in images.base_bytes.items())
    registry, saved, oci = (forms.count(form) for form in ("docker", "docker-archive", "oci-archive"))
    return (
        f"{len(forms)} images on shared bases: {bases}. Each has 1 to 3 layers of its own, all together "
        f"{images.own_bytes / 1e6:,.0f} MB. {registry} come from a registry, {saved} are archives of `docker save`, "
        f"{oci} OCI archives.\n"
    )


def _side_by_side(title: str, kind: str, images: Fleet, costs: Measured) -> str:
    lines = [
        f"## {title}",
        "",
        "| what | images | wall s | s for each | batch is faster by | CPU s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    forms = [member.form for member in images.members]
    batch = costs[kind, "batch"].wall / len(forms)
    for what, label in _TOOLS.items():
        cost = costs[kind, what]
        count = forms.count("docker") if what == "peers" else len(forms)
        each = cost.wall / count
        faster = "" if what == "batch" else f"{each / batch:.1f}"
        cells = [label, str(count), f"{cost.wall:.1f}", f"{each:.2f}", faster]
        lines.append(f"| {' | '.join([*cells, f'{cost.cpu:.1f}'])} |")
    return "\n".join([*lines, ""])


def _disk(images: Fleet, disk: Disk) -> str:
    distinct, whole = images.distinct_bytes, sum(disk.values())
    once = distinct - images.common_bytes
    kinds = ", ".join(f"{kind.lower()} {size / 1e6:,.0f} MB" for kind, size in disk.items())
    return (
        "## Disk\n\n"
        "| distinct content MB | in use on btrfs after the batch MB | ratio |\n|--:|--:|--:|\n"
        f"| {distinct / 1e6:,.0f} | {whole / 1e6:,.0f} | {whole / distinct:.2f} |\n\n"
        "The distinct content is that of the bases' trees and of each image's own files that survive, added up from "
        "the layers by other code than converts them; with the layer that two bases share counted once it is "
        f"{once / 1e6:,.0f} MB, and the ratio {whole / once:.2f}. In use: {kinds}, as on the disk, where btrfs keeps "
        "metadata twice (DUP).\n"
    )


def _growth(growth: Sequence[Growth]) -> str:
    lines = [
        f"## {growth[-1].count:,} small images in one list",
        "",
        "| images | wall s | ms for each | ratio | PSS MB | RSS MB | processes | report kB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    first = growth[0].footprint.wall / growth[0].count
    for one in growth:
        taken = one.footprint
        each = taken.wall / one.count
        cells = [f"{one.count:,}", f"{taken.wall:.1f}", f"{each * 1e3:.0f}", f"{each / first:.2f}"]
        cells += [f"{taken.pss / 1e6:.0f}", f"{taken.rss / 1e6:.0f}", str(taken.processes)]
        lines.append(f"| {' | '.join([*cells, f'{one.report_bytes / 1e3:,.0f}'])} |")
    return "\n".join([*lines, "", _SMALL_NOTES])
