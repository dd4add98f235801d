"""The options of the command line: their names, their help, and what their texts mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from converter.errors import ConversionError
from converter.machine.mapping import Hardening
from converter.machine.model import Port
from converter.machine.mounts import Volumes
from converter.machine.network import parse_port
from converter.machine.ports import NetworkKind
from converter.options import OLDEST_SYSTEMD

_SOURCE_HELP = (
    "docker-daemon:REF, container:NAME, docker-archive:FILE[:REF], oci-archive:FILE[:TAG], oci:DIR[:TAG], "
    "docker://REF or dockerfile:PATH; without a transport, a file or folder is recognised by its content, and any "
    "other text is an image of the Docker daemon or, if it has none such, of a registry."
)


Source = Annotated[str, typer.Argument(metavar="SOURCE", help=_SOURCE_HELP, show_default=False)]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Machine name; default: from the source.")
]
Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Work below DIR instead of /.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a machine of that name.")]
NoTrust = Annotated[
    bool, typer.Option("--no-trust", help="Do not link the settings file from /etc/systemd/nspawn.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail, writing nothing, if anything would be dropped.")
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform", metavar="OS/ARCH", help="Which of a multi-platform image; default: this machine."
    ),
]
PlainHttp = Annotated[
    bool,
    typer.Option("--plain-http", help="Speak HTTP without TLS to the registry (loopback: always allowed)."),
]
MaxEntries = Annotated[
    int,
    typer.Option("--max-entries", metavar="N", min=1, help="How many entries all layers together may have."),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="BYTES",
        help="How many bytes the files may have, with suffix K, M, G or T; default: what is free on the disk.",
    ),
]
Network = Annotated[
    NetworkKind | None,
    typer.Option(
        "--network",
        help="host: the host's own; none: loopback only; private: an address of its own behind the host. Default: "
        "as in Docker, for an image private.",
        show_default=False,
    ),
]
Publish = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--publish",
        metavar="[[IP:]PORT:]PORT[/PROTO]",
        help="Publish a port of the machine on the host, as `docker run -p`; may be repeated.",
    ),
]
PublishAll = Annotated[
    bool, typer.Option("-P", "--publish-all", help="Publish every EXPOSEd port, on the same number.")
]
VolumesOption = Annotated[
    Volumes,
    typer.Option(
        "--volumes",
        help="copy: data outlives the machine, that of a container's volumes is copied; bind: a container's volumes "
        "stay where Docker has them; none: in the tree, and a container's volumes are left out.",
    ),
]
HardeningOption = Annotated[
    Hardening,
    typer.Option(
        "--hardening", help="default: as Docker's default; strict: also user ids of its own, no setuid."
    ),
]
Systemd = Annotated[
    int | None,
    typer.Option(
        "--systemd",
        metavar="VERSION",
        min=OLDEST_SYSTEMD,
        help="systemd's version where the machine will run; default: what is installed below --root.",
        show_default=False,
    ),
]
OnUnhealthy = Annotated[
    Literal["none", "restart"],
    typer.Option("--on-unhealthy", help="What happens when the HEALTHCHECK says so."),
]


DockerfileSource = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="A Dockerfile, or the folder that it is in.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="DIR", help="Where to write it; a new folder.", show_default=False
    ),
]
DockerfilePath = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="The Dockerfile, where it is not PATH/Dockerfile; SOURCE is the build context then.",
        show_default=False,
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="STAGE", help="The stage to make; default: the last.", show_default=False
    ),
]
BuildArg = Annotated[
    list[str] | None,
    typer.Option("--build-arg", metavar="NAME[=VALUE]", help="An ARG's value; may be repeated."),
]
Base = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="NAME=SOURCE",
        help="Where the image that FROM calls NAME is; `image`: all are where their names say. Default: Debian, "
        "Ubuntu, Alpine, Arch, Fedora and the like are made here from their packages.",
    ),
]
Mirror = Annotated[
    str | None,
    typer.Option("--mirror", metavar="URL", help="Where a base's packages come from.", show_default=False),
]
Secret = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="id=ID[,src=FILE|,env=NAME]", help="For RUN --mount=type=secret."),
]
Ssh = Annotated[
    list[str] | None,
    typer.Option("--ssh", metavar="ID[=SOCKET]", help="An agent, for RUN --mount=type=ssh."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="security.insecure", help="Let RUN --security=insecure be privileged."),
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Run every step again.")]
Pull = Annotated[bool, typer.Option("--pull", help="Take or make the bases anew.")]
Chroot = Annotated[bool, typer.Option("--chroot", help="Run the steps in a chroot, not in systemd-nspawn.")]
DebugShell = Annotated[bool, typer.Option("--debug-shell", help="A shell where a step has failed.")]

List = Annotated[
    str | None,
    typer.Argument(
        metavar="[LIST]",
        help="A file with a machine on each line (SOURCE [NAME]), or YAML; - is standard input.",
        show_default=False,
    ),
]
AllContainers = Annotated[
    bool, typer.Option("--all-containers", help="Every container of the Docker daemon, running or not.")
]
AllImages = Annotated[
    bool, typer.Option("--all-images", help="Every image of the Docker daemon that has a tag.")
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY[=VALUE]",
        help="Of these only those with this label; alone, of all containers. May be repeated.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Plan all, write nothing but the report.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        metavar="N",
        min=1,
        help="How many at a time; default: what processors and memory allow.",
        show_default=False,
    ),
]
FailFast = Annotated[
    bool,
    typer.Option(
        "--fail-fast/--keep-going", help="Begin nothing more once one has failed; default: keep going."
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Leave out what is complete and unchanged, by its digest and its options."),
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries", metavar="N", min=0, help="How often to try again after a fault of the network."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Have the workers of this Dask cluster do it (tcp://HOST:8786); needs docker2nspawn[cluster].",
        show_default=False,
    ),
]
Report = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a report: FILE.json, FILE.html or FILE.md; may be repeated.",
        show_default=False,
    ),
]
CacheSize = Annotated[
    str,
    typer.Option(
        "--cache-size", metavar="BYTES", help="What may stay in the cache when all is done; K, M, G, T."
    ),
]

KeptSize = Annotated[
    str | None,
    typer.Option(
        "--cache-size",
        metavar="BYTES",
        help="What may stay in each of the two caches; K, M, G, T. Default: 20G, or with --unused-for nothing.",
        show_default=False,
    ),
]
PruneAll = Annotated[bool, typer.Option("--all", help="Take everything out that nobody is using.")]
UnusedFor = Annotated[
    str | None,
    typer.Option(
        "--unused-for",
        metavar="TIME",
        help="Take out only what was not used for so long: 90m, 12h, 7d, 4w.",
        show_default=False,
    ),
]
PruneDryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be taken out.")]


def ports(texts: list[str] | None) -> tuple[Port, ...]:
    try:
        return tuple(port for text in texts or () for port in parse_port(text))
    except ConversionError as error:
        raise typer.BadParameter(str(error), param_hint="--publish") from None


def size(text: str, option: str = "--max-size") -> int:
    """A size with one of systemd's suffixes, to the base of 1024 (systemd.syntax(7))."""
    match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size; write it like 500M or 20G", param_hint=option)
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def duration(text: str, option: str) -> float:
    """A time in seconds, with one of systemd's suffixes (systemd.time(7))."""
    match = re.fullmatch(r"([0-9]{1,9})(s|m|min|h|d|w)", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time; write it like 12h or 7d", param_hint=option)
    return int(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]
