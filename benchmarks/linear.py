"""Does time grow with the number of layers? Do time and memory grow faster than the number of entries?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import cache, growth
from benchmarks.cache import Input
from benchmarks.rounds import Costs, rounds
from benchmarks.tools import FLOOR, TOOLS, Tool


def report(target: Path, repeat: int, machine: str) -> str:
    """Measure both and write the tables."""
    layered = [cache.get(name, maker="growth") for name in growth.LAYERS]
    grown = [cache.get(name, maker="growth") for name in growth.ENTRIES]
    oci, archive, tar = (_tool(name) for name in ("ours-oci", "ours-archive", FLOOR))
    layer_costs = rounds(layered, [oci, archive], target, repeat)
    entry_costs = rounds(grown, [archive, tar], target, repeat)
    parts = [
        "# Growth\n",
        f"Written by `benchmarks/run --linear`, on {machine}. Medians; repetitions: {repeat}. Cold cache.\n",
        _by_layers(layered, [oci, archive], layer_costs),
        _by_entries(grown, archive, tar, entry_costs),
    ]
    return "\n".join(parts)


def _tool(name: str) -> Tool:
    return next(tool for tool in TOOLS if tool.name == name)


def _by_layers(images: Sequence[Input], tools: Sequence[Tool], costs: Costs) -> str:
    facts = images[0].facts
    lines = [
        "## The same content in more layers",
        "",
        f"{facts.entries:,} entries, {facts.flat_bytes / 1e6:,.0f} MB. Ratios are to one layer.",
        "",
        "| layers | input | wall s | ratio | CPU s | ratio | peak MB |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for tool in tools:
        base = costs[images[0].name, tool.name]
        for one in images:
            cost = costs[one.name, tool.name]
            cells = [str(one.facts.layers), tool.form, f"{cost.wall:.2f}", f"{cost.wall / base.wall:.2f}"]
            cells += [f"{cost.cpu:.2f}", f"{cost.cpu / base.cpu:.2f}", f"{cost.peak / 1e6:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _by_entries(images: Sequence[Input], ours: Tool, floor: Tool, costs: Costs) -> str:
    lines = [
        "## More entries",
        "",
        "One uncompressed layer of files, one in four with 100 bytes, the others empty. Memory per entry is what was "
        "needed beyond the first row, for each entry more than there.",
        "",
        "| entries | wall s | µs per entry | CPU µs per entry | tar -x, µs per entry | peak MB | bytes per entry |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    first = images[0].facts.entries
    base = costs[images[0].name, ours.name].peak
    for one in images:
        cost, entries = costs[one.name, ours.name], one.facts.entries
        tar = costs[one.name, floor.name].wall
        more = "–" if entries == first else f"{(cost.peak - base) / (entries - first):.0f}"
        cells = [f"{entries:,}", f"{cost.wall:.2f}"]
        cells += [f"{seconds / entries * 1e6:.0f}" for seconds in (cost.wall, cost.cpu, tar)]
        lines.append(f"| {' | '.join([*cells, f'{cost.peak / 1e6:.0f}', more])} |")
    return "\n".join([*lines, ""])
