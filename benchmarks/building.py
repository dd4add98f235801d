"""One Dockerfile, built again with nothing changed and with its last line edited, by docker2nspawn and by Docker."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import image
from benchmarks.engine import Engine, engine
from benchmarks.measure import Cost, measure, median
from tests import lab

_OURS = Path(sys.executable).with_name("docker2nspawn")
OURS, DOCKER = "ours", "docker"
BASE = "docker2nspawn-bench/base:latest"
_FILES = 2000
_STEPS = 20

# Nothing in it needs a network: what is measured is not a mirror.
_DOCKERFILE = f"""\
FROM {BASE} AS base
FROM base AS build
WORKDIR /src
COPY files/ ./
RUN find . -type f | sort | xargs sha256sum > /sums
FROM base
ENV LANG=C.UTF-8
WORKDIR /app
COPY files/ ./
COPY --from=build /sums ./
{"".join(f"RUN echo {number} >> /app/steps{chr(10)}" for number in range(_STEPS))}\
LABEL edited=no
RUN echo last >> /app/steps
"""


@dataclass(frozen=True)
class Tool:
    """`first` builds the context with nothing of it in the cache, `again` with all that was built before.

    `reset` comes before, and is not measured. {} is a number that is new each time.
    """

    name: str
    reset: str
    first: str
    again: str
    environment: Mapping[str, str] = field(default_factory=dict)


ABOUT = (
    f"A Debian base, two stages, {_FILES:,} files copied twice, {_STEPS + 2} RUN instructions that only write a line: "
    "nothing that waits for a network."
)

Costs = dict[tuple[str, str], Cost]
"""By the tool's name and "first", "again" or "edited"."""


def costs(scratch: Path, repeat: int) -> tuple[Costs, str]:
    """Medians, and why Docker could not be measured, if so."""
    context, archive = scratch / "context", scratch / "base.tar"
    _write_context(context)
    image.write_docker_archive([image.layer(lab.root_tarball("debian"))], archive, BASE)
    found: dict[tuple[str, str], list[Cost]] = {}
    with engine() as docker:
        tools = [_ours(context, archive, scratch / "root")]
        if not isinstance(docker, str):
            tools.append(_docker(context, archive, docker))
        for turn in range(repeat):
            for tool in tools:
                for what, cost in _rounds(tool, context, turn):
                    found.setdefault((tool.name, what), []).append(cost)
                    shown = f"{turn + 1}/{repeat} {tool.name}, {what}: {cost.wall:.2f} s"
                    print(f"benchmarks: {shown}", file=sys.stderr, flush=True)
    return {key: median(several) for key, several in found.items()}, docker if isinstance(docker, str) else ""


def _rounds(tool: Tool, context: Path, turn: int) -> Iterator[tuple[str, Cost]]:
    """With a warm page cache: who builds again has just built."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(_DOCKERFILE)
    numbers = (str(number) for number in range(10 * turn, 10 * turn + 10))

    def run(command: str) -> Cost:
        filled = command.replace("{}", next(numbers))
        return measure(filled, environment=tool.environment, cold=False)

    run(tool.reset)
    yield "first", run(tool.first)
    yield "again", run(tool.again)
    dockerfile.write_text(_DOCKERFILE.replace("echo last", "echo edited"))
    yield "edited", run(tool.again)


def _ours(context: Path, archive: Path, root: Path) -> Tool:
    command = [str(_OURS), "convert", f"dockerfile:{context}", "--root", str(root)]
    command += ["--base", f"{BASE}=docker-archive:{archive}", "--name", "m{}"]
    # Nothing is deleted: ext4 is slow to make files for minutes after that. The base stays, as Docker's does.
    reset = f"[ ! -e {root} ] || mv {root} {root}-{{}}; {shlex.join([*command, '--target=base'])}"
    return Tool(OURS, reset, shlex.join(command), shlex.join(command))


def _docker(context: Path, archive: Path, docker: Engine) -> Tool:
    load = f"docker load --quiet --input {shlex.quote(str(archive))}"
    build = ["docker", "build", "--quiet", "--network=host", "--tag=docker2nspawn-bench/built", str(context)]
    first = [*build[:2], "--no-cache", *build[2:]]
    return Tool(DOCKER, load, shlex.join(first), shlex.join(build), docker.environment)


def _write_context(context: Path) -> None:
    for number in range(_FILES):
        path = context / "files" / f"d{number // 100}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number % 500))
