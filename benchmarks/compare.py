"""Measures docker2nspawn and its peers side by side, with a cold cache, and writes a table of ratios to `tar -x`.

Tools take turns within each repetition, so that noise from outside hits all alike; every number is a median. Trees
are written to the disk that the inputs lie on. A tool that fails, or whose tree lacks entries, ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import batch, cache, dockerfiles, inputs, linear
from benchmarks.cache import CACHE, Input
from benchmarks.engine import Engine, engine
from benchmarks.measure import Failed, floor_of_peak, remove
from benchmarks.rounds import Costs, rounds
from benchmarks.tools import FLOOR, TOOLS, Tool

_HERE = Path(__file__).parent

_FOOTNOTES = (
    "Wall time, CPU time (user and system) and memory (the largest process) are medians; the ratios are to `tar -x` "
    "of the flattened, uncompressed tarball of the same input. Each tree is written into a new directory. Before each "
    "measurement everything dirty is written out and the page cache dropped.",
    "docker2nspawn and importctl have the tree on the disk when they end (`syncfs`); tar, bsdtar, umoci and docker "
    "leave it in the page cache. docker2nspawn also verifies every digest, which of these only umoci and skopeo do.",
    "¹ The CPU time and memory of the Docker Engine are not included, only those of its client and of what is piped "
    "into.",
    "² systemd-import, the program that systemd-importd runs for `importctl import-tar` and `machinectl import-tar`; "
    "those two need a booted systemd, it does not.",
)


def main() -> None:
    """Entry point; every failure is one message and exit 1."""
    arguments = _arguments()
    # A run that is ended must still end the Docker Engine it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # Two runs would measure each other.
        with cache.lock("measuring"), _target() as target:
            if arguments.linear:
                text = linear.report(target, arguments.repeat or 5, _machine())
            elif arguments.dockerfiles:
                text = dockerfiles.report(arguments.repeat or 5, _machine())
            elif arguments.batch:
                text = batch.report(target, arguments.count, arguments.repeat or 3, _machine())
            else:
                text = _compare(target, arguments.input, arguments.tool, arguments.repeat or 5)
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(f"benchmarks: {error}")
    output = arguments.output or _HERE / _output(arguments)
    output.write_text(text)
    print(text, end="")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    names = [tool.name for tool in TOOLS]
    parser.add_argument("--input", action="append", choices=list(inputs.RECIPES), help="default: all")
    parser.add_argument(
        "--tool", action="append", choices=names, help=f"default: all; {FLOOR} is always measured"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="default: 5, with --batch 3")
    parser.add_argument(
        "--linear", action="store_true", help="instead: growth with the number of layers and of entries"
    )
    parser.add_argument(
        "--dockerfiles",
        action="store_true",
        help="instead: Dockerfiles translated, and built again beside docker",
    )
    parser.add_argument(
        "--batch", action="store_true", help="instead: many images in one list beside one after the other"
    )
    parser.add_argument(
        "--count", type=int, default=40, metavar="N", help="with --batch: how many images; default: 40"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: results.md (linear.md, dockerfiles.md, batch.md) beside this file",
    )
    return parser.parse_args()


def _output(arguments: argparse.Namespace) -> str:
    if arguments.linear:
        return "linear.md"
    if arguments.dockerfiles:
        return "dockerfiles.md"
    return "batch.md" if arguments.batch else "results.md"


@contextlib.contextmanager
def _target() -> Iterator[Path]:
    """Where trees are written: on the disk of the inputs. It does not exist yet, and is gone at the end."""
    target = CACHE / "target"
    try:
        yield target
    finally:
        remove(target)


def _compare(target: Path, names: Sequence[str] | None, tools: Sequence[str] | None, repeat: int) -> str:
    chosen = [tool for tool in TOOLS if not tools or tool.name in (*tools, FLOOR)]
    absent = {tool.name: reason for tool in chosen if (reason := tool.missing())}
    images = [cache.get(name, maker="inputs") for name in names or inputs.RECIPES]
    floor = floor_of_peak()
    sections = []
    with _engine(chosen) as (docker, why_not):
        if docker is None:
            absent |= {tool.name: why_not for tool in chosen if tool.docker}
        present = [tool for tool in chosen if tool.name not in absent]
        for one in images:
            costs = rounds([one], present, target, repeat, docker)
            sections.append(_section(one, present, costs, floor))
    notes = [*_FOOTNOTES, _floor_note(floor)]
    notes += [f"Missing here: {name}: {reason}." for name, reason in absent.items()]
    head = f"# Side by side\n\nWritten by `benchmarks/run`, on {_machine()}. Repetitions: {repeat}.\n"
    return "\n".join([head, *sections, *(f"{note}\n" for note in notes)])


@contextlib.contextmanager
def _engine(tools: Sequence[Tool]) -> Iterator[tuple[Engine | None, str]]:
    """A Docker Engine, if a tool needs one; else None and the reason."""
    if not any(tool.docker for tool in tools):
        yield None, "not asked for"
        return
    with engine() as docker:
        yield (None, docker) if isinstance(docker, str) else (docker, "")


def _section(one: Input, tools: Sequence[Tool], costs: Costs, floor: float) -> str:
    facts = one.facts
    about = f"{facts.entries:,} entries, {facts.flat_bytes / 1e6:,.0f} MB flattened, {facts.layers} layers"
    lines = [
        f"## {one.name}: {inputs.RECIPES[one.name].about}",
        "",
        f"{about}, {facts.gzip_bytes / 1e6:,.0f} MB as gzip.",
        "",
        "| tool | input | wall s | ratio | CPU s | ratio | peak MB |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    base = costs[one.name, FLOOR]
    for tool in tools:
        cost = costs[one.name, tool.name]
        peak = f"{cost.peak / 1e6:.0f}" if cost.peak > floor * 1.05 else f"≤ {floor / 1e6:.0f}"
        cells = [tool.label, tool.form, f"{cost.wall:.1f}", f"{cost.wall / base.wall:.2f}"]
        cells += [f"{cost.cpu:.1f}", f"{cost.cpu / base.cpu:.2f}", peak]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _floor_note(floor: float) -> str:
    return f"A peak of {floor / 1e6:.0f} MB or less cannot be told from that of the program that measures."


def _machine() -> str:
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    kind = subprocess.run(
        ["findmnt", "--noheadings", "--output=FSTYPE", "--target", CACHE],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = os.cpu_count()
    return f"{release}, Linux {platform.release()}, {cores} cores, {memory:.0f} GB of memory, {kind}"


if __name__ == "__main__":
    main()
