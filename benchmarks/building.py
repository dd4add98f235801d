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
    """`command` builds the context; `reset` makes it forget what it has built before."""

    name: str
    command: str
    reset: str
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
                for what, cost in _rounds(tool, context):
                    found.setdefault((tool.name, what), []).append(cost)
                    shown = f"{turn + 1}/{repeat} {tool.name}, {what}: {cost.wall:.2f} s"
                    print(f"benchmarks: {shown}", file=sys.stderr, flush=True)
    return {key: median(several) for key, several in found.items()}, docker if isinstance(docker, str) else ""


def _rounds(tool: Tool, context: Path) -> Iterator[tuple[str, Cost]]:
    """With a warm page cache: who builds again has just built."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(_DOCKERFILE)
    measure(tool.reset, environment=tool.environment, cold=False)
    for what in ("first", "again"):
        yield what, measure(tool.command, environment=tool.environment, cold=False)
    dockerfile.write_text(_DOCKERFILE.replace("echo last", "echo edited"))
    yield "edited", measure(tool.command, environment=tool.environment, cold=False)


def _ours(context: Path, archive: Path, root: Path) -> Tool:
    command = [str(_OURS), "convert", f"dockerfile:{context}", "--name", "m", "--force", "--root", str(root)]
    command += ["--base", f"{BASE}=docker-archive:{archive}"]
    # The base stays, as Docker's does.
    return Tool(OURS, shlex.join(command), f"rm -rf {root}; {shlex.join([*command, '--target=base'])}")


def _docker(context: Path, archive: Path, docker: Engine) -> Tool:
    environment = {**docker.environment, "DOCKER_BUILDKIT": "1"}
    measure(f"docker load --quiet --input {shlex.quote(str(archive))}", environment=environment, cold=False)
    command = (
        f"docker build --quiet --network=host --tag docker2nspawn-bench/built {shlex.quote(str(context))}"
    )
    return Tool(DOCKER, command, "docker builder prune --all --force", environment)


def _write_context(context: Path) -> None:
    for number in range(_FILES):
        path = context / "files" / f"d{number // 100}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number % 500))
