"""The front door: commands, options, exit codes; no logic."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from converter import conversion, interrupt, report
from converter.check import command
from converter.errors import ConversionError
from converter.image.model import parse_platform
from converter.machine.mapping import Hardening
from converter.machine.model import Port
from converter.machine.mounts import Volumes
from converter.machine.network import parse_port
from converter.machine.ports import NetworkKind
from converter.rootfs.merge import Limits

app = typer.Typer(
    name="docker2nspawn",
    help="Turn Docker images, containers and archives into systemd-nspawn machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_SOURCE_HELP = (
    "docker-daemon:REF, container:NAME, docker-archive:FILE[:REF], oci-archive:FILE[:TAG], oci:DIR[:TAG] or "
    "docker://REF; without a transport, a file or folder is recognised by its content, and any other text is an "
    "image of the Docker daemon or, if it has none such, of a registry."
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
        min=conversion.OLDEST_SYSTEMD,
        help="systemd's version where the machine will run; default: what is installed below --root.",
        show_default=False,
    ),
]
OnUnhealthy = Annotated[
    Literal["none", "restart"],
    typer.Option("--on-unhealthy", help="What happens when the HEALTHCHECK says so."),
]


@app.command("convert")
def convert_command(
    source: Source,
    name: Name = None,
    root: Root = Path("/"),
    force: Force = False,
    no_trust: NoTrust = False,
    as_json: Json = False,
    strict: Strict = False,
    platform: PlatformOption = None,
    plain_http: PlainHttp = False,
    max_entries: MaxEntries = Limits.entries,
    max_size: MaxSize = None,
    network: Network = None,
    publish: Publish = None,
    publish_all: PublishAll = False,
    volumes: VolumesOption = "copy",
    hardening: HardeningOption = "default",
    systemd: Systemd = None,
    on_unhealthy: OnUnhealthy = "none",
) -> None:
    """Make a machine of SOURCE: its tree and its settings, ready for `machinectl start`."""
    options = _options(
        name, root, force, no_trust, strict, platform, plain_http, max_entries, max_size,
        network, publish, publish_all, volumes, hardening, systemd, on_unhealthy,
    )  # fmt: skip
    result = conversion.convert(source, options, report.progress_for_terminal())
    report.print_json(result) if as_json else report.print_result(result)


@app.command("plan")
def plan_command(
    source: Source,
    name: Name = None,
    root: Root = Path("/"),
    no_trust: NoTrust = False,
    as_json: Json = False,
    strict: Strict = False,
    platform: PlatformOption = None,
    plain_http: PlainHttp = False,
    max_entries: MaxEntries = Limits.entries,
    max_size: MaxSize = None,
    network: Network = None,
    publish: Publish = None,
    publish_all: PublishAll = False,
    volumes: VolumesOption = "copy",
    hardening: HardeningOption = "default",
    systemd: Systemd = None,
    on_unhealthy: OnUnhealthy = "none",
) -> None:
    """The same decisions, nothing written: print the settings file, the drop-in and the notes."""
    options = _options(
        name, root, False, no_trust, strict, platform, plain_http, max_entries, max_size,
        network, publish, publish_all, volumes, hardening, systemd, on_unhealthy,
    )  # fmt: skip
    result = conversion.plan(source, options, report.progress_for_terminal())
    report.print_json(result) if as_json else report.print_plan(result)


@app.command("check")
def check_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A machine that was made here.", show_default=False)
    ],
    root: Root = Path("/"),
    as_json: Json = False,
) -> None:
    """Say what would go wrong with machine NAME on this host, and what to do about it; exit 1 with problems."""
    raise typer.Exit(command.run(name, root.absolute(), as_json=as_json))


def _options(
    name: str | None,
    root: Path,
    force: bool,
    no_trust: bool,
    strict: bool,
    platform: str | None,
    plain_http: bool,
    max_entries: int,
    max_size: str | None,
    network: NetworkKind | None,
    publish: list[str] | None,
    publish_all: bool,
    volumes: Volumes,
    hardening: Hardening,
    systemd: int | None,
    on_unhealthy: Literal["none", "restart"],
) -> conversion.Options:
    return conversion.Options(
        name=name,
        root=root.absolute(),
        force=force,
        strict=strict,
        trust=not no_trust,
        platform=parse_platform(platform) if platform else None,
        plain_http=plain_http,
        max_entries=max_entries,
        max_size=_bytes(max_size) if max_size is not None else None,
        network=network,
        ports=_ports(publish),
        publish_all=publish_all,
        volumes=volumes,
        hardening=hardening,
        systemd=systemd,
        restart_unhealthy=on_unhealthy == "restart",
    )


def _ports(texts: list[str] | None) -> tuple[Port, ...]:
    try:
        return tuple(port for text in texts or () for port in parse_port(text))
    except ConversionError as error:
        raise typer.BadParameter(str(error), param_hint="--publish") from None


def _bytes(text: str) -> int:
    """A size with one of systemd's suffixes, to the base of 1024 (systemd.syntax(7))."""
    match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is not a size; write it like 500M or 20G", param_hint="--max-size"
        )
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def main() -> None:
    """Entry point: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt.on_signal)
    try:
        try:
            app()
        finally:
            interrupt.too_late()
    except ConversionError as error:
        sys.stderr.write(f"docker2nspawn: {error}\n")
        sys.exit(1)
    except interrupt.Interrupted:
        sys.stderr.write("docker2nspawn: interrupted; nothing was installed\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
