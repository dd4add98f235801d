"""The front door: commands, options, exit codes; no logic."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from converter import arguments as a
from converter import conversion, interrupt, report
from converter.check import command
from converter.dockerfile.choices import BuildChoices
from converter.errors import ConversionError
from converter.image.model import parse_platform
from converter.machine.mapping import Hardening
from converter.machine.mounts import Volumes
from converter.machine.ports import NetworkKind
from converter.options import Options
from converter.rootfs.merge import Limits

app = typer.Typer(
    name="docker2nspawn",
    help="Turn Docker images, containers, archives and Dockerfiles into systemd-nspawn machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

cache_app = typer.Typer(
    help="What was made already: layers of Dockerfiles, and what the images of a batch share.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(cache_app, name="cache")


@app.command("convert")
def convert_command(
    source: a.Source,
    name: a.Name = None,
    root: a.Root = Path("/"),
    force: a.Force = False,
    no_trust: a.NoTrust = False,
    as_json: a.Json = False,
    strict: a.Strict = False,
    platform: a.PlatformOption = None,
    plain_http: a.PlainHttp = False,
    max_entries: a.MaxEntries = Limits.entries,
    max_size: a.MaxSize = None,
    network: a.Network = None,
    publish: a.Publish = None,
    publish_all: a.PublishAll = False,
    volumes: a.VolumesOption = "copy",
    hardening: a.HardeningOption = "default",
    systemd: a.Systemd = None,
    on_unhealthy: a.OnUnhealthy = "none",
    file: a.DockerfilePath = None,
    target: a.Target = None,
    build_arg: a.BuildArg = None,
    base: a.Base = None,
    mirror: a.Mirror = None,
    secret: a.Secret = None,
    ssh: a.Ssh = None,
    allow: a.Allow = None,
    no_cache: a.NoCache = False,
    pull: a.Pull = False,
    chroot: a.Chroot = False,
    debug_shell: a.DebugShell = False,
) -> None:
    """Make a machine of SOURCE: its tree and its settings, ready for `machinectl start`."""
    options = _options(
        name, root, force, no_trust, strict, platform, plain_http, max_entries, max_size,
        network, publish, publish_all, volumes, hardening, systemd, on_unhealthy,
    )  # fmt: skip
    build = replace(
        _build(file, target, build_arg, base),
        mirror=mirror,
        secrets=tuple(secret or ()),
        agents=tuple(ssh or ()),
        allow=tuple(allow or ()),
        no_cache=no_cache,
        pull=pull,
        chroot=chroot,
        debug_shell=debug_shell,
    )
    progress = report.progress_for_terminal()
    options = replace(options, build=build, output=report.output_for_terminal(progress))
    result = conversion.convert(source, options, progress)
    report.print_json(result) if as_json else report.print_result(result)


@app.command("plan")
def plan_command(
    source: a.Source,
    name: a.Name = None,
    root: a.Root = Path("/"),
    no_trust: a.NoTrust = False,
    as_json: a.Json = False,
    strict: a.Strict = False,
    platform: a.PlatformOption = None,
    plain_http: a.PlainHttp = False,
    max_entries: a.MaxEntries = Limits.entries,
    max_size: a.MaxSize = None,
    network: a.Network = None,
    publish: a.Publish = None,
    publish_all: a.PublishAll = False,
    volumes: a.VolumesOption = "copy",
    hardening: a.HardeningOption = "default",
    systemd: a.Systemd = None,
    on_unhealthy: a.OnUnhealthy = "none",
    file: a.DockerfilePath = None,
    target: a.Target = None,
    build_arg: a.BuildArg = None,
    base: a.Base = None,
) -> None:
    """The same decisions, nothing written: print the settings file, the drop-in and the notes."""
    options = _options(
        name, root, False, no_trust, strict, platform, plain_http, max_entries, max_size,
        network, publish, publish_all, volumes, hardening, systemd, on_unhealthy,
    )  # fmt: skip
    options = replace(options, build=_build(file, target, build_arg, base))
    result = conversion.plan(source, options, report.progress_for_terminal())
    report.print_json(result) if as_json else report.print_plan(result)


@app.command("dockerfile")
def dockerfile_command(
    path: a.DockerfileSource,
    output: a.Output,
    name: a.Name = None,
    root: a.Root = Path("/"),
    force: a.Force = False,
    as_json: a.Json = False,
    strict: a.Strict = False,
    platform: a.PlatformOption = None,
    plain_http: a.PlainHttp = False,
    file: a.DockerfilePath = None,
    target: a.Target = None,
    build_arg: a.BuildArg = None,
    base: a.Base = None,
    network: a.Network = None,
    publish: a.Publish = None,
    publish_all: a.PublishAll = False,
    hardening: a.HardeningOption = "default",
    systemd: a.Systemd = None,
    on_unhealthy: a.OnUnhealthy = "none",
) -> None:
    """Translate a Dockerfile into shell scripts, a mkosi tree and a settings file; nothing is built."""
    options = _options(
        name, root, force, False, strict, platform, plain_http, Limits.entries, None,
        network, publish, publish_all, "copy", hardening, systemd, on_unhealthy,
    )  # fmt: skip
    build = BuildChoices(file=file, target=target, build_args=tuple(build_arg or ()), bases=tuple(base or ()))
    translated = conversion.translate(
        path, output, replace(options, build=build), report.progress_for_terminal()
    )
    report.print_json(translated) if as_json else report.print_translated(translated)


@app.command("batch")
def batch_command(
    source: a.List = None,
    all_containers: a.AllContainers = False,
    all_images: a.AllImages = False,
    label: a.Label = None,
    dry_run: a.DryRun = False,
    jobs: a.Jobs = None,
    fail_fast: a.FailFast = False,
    resume: a.Resume = False,
    retries: a.Retries = 4,
    scheduler: a.Scheduler = None,
    report_file: a.Report = None,
    as_json: a.Json = False,
    cache_size: a.CacheSize = "20G",
    root: a.Root = Path("/"),
    force: a.Force = False,
    no_trust: a.NoTrust = False,
    strict: a.Strict = False,
    platform: a.PlatformOption = None,
    plain_http: a.PlainHttp = False,
    max_entries: a.MaxEntries = Limits.entries,
    max_size: a.MaxSize = None,
    network: a.Network = None,
    publish_all: a.PublishAll = False,
    volumes: a.VolumesOption = "copy",
    hardening: a.HardeningOption = "default",
    systemd: a.Systemd = None,
    on_unhealthy: a.OnUnhealthy = "none",
) -> None:
    """Make a machine of every source of LIST, or of the Docker daemon, and report on all."""
    from converter.batch.command import Wanted, batch  # here, because YAML and tables take long to load
    from converter.batch.run import Rules

    options = _options(
        None, root, force, no_trust, strict, platform, plain_http, max_entries, max_size,
        network, None, publish_all, volumes, hardening, systemd, on_unhealthy,
    )  # fmt: skip
    wanted = Wanted(
        source,
        options,
        all_containers=all_containers,
        all_images=all_images,
        labels=tuple(label or ()),
        jobs=jobs,
        scheduler=scheduler,
        reports=tuple(report_file or ()),
        as_json=as_json,
        cache_size=a.size(cache_size, "--cache-size"),
        rules=Rules(resume=resume, dry_run=dry_run, fail_fast=fail_fast, retries=retries),
    )
    raise typer.Exit(batch(wanted))


@app.command("check")
def check_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A machine that was made here.", show_default=False)
    ],
    root: a.Root = Path("/"),
    as_json: a.Json = False,
) -> None:
    """Say what would go wrong with machine NAME on this host, and what to do about it; exit 1 with problems."""
    raise typer.Exit(command.run(name, root.absolute(), as_json=as_json))


@cache_app.command("ls")
def cache_ls_command(root: a.Root = Path("/"), as_json: a.Json = False) -> None:
    """Show what is in the caches, the last used first; sizes count what entries share with others in each."""
    from converter.cache.command import show_caches  # here, because tables take long to load

    show_caches(root.absolute(), as_json=as_json)


@cache_app.command("prune")
def cache_prune_command(
    cache_size: a.KeptSize = None,
    everything: a.PruneAll = False,
    unused_for: a.UnusedFor = None,
    dry_run: a.PruneDryRun = False,
    root: a.Root = Path("/"),
    as_json: a.Json = False,
) -> None:
    """Take out of the caches what was not used for longest, and nothing that is in use."""
    from converter.cache.command import Wanted, prune_caches

    if everything and cache_size is not None:
        raise typer.BadParameter("it leaves nothing, so there is no --cache-size", param_hint="--all")
    limit = a.size(cache_size, "--cache-size") if cache_size is not None else None
    prune_caches(
        Wanted(
            root.absolute(),
            0 if everything else limit,
            a.duration(unused_for, "--unused-for") if unused_for is not None else None,
            dry_run=dry_run,
            as_json=as_json,
        )
    )


def _build(
    file: Path | None, target: str | None, build_arg: list[str] | None, base: list[str] | None
) -> BuildChoices:
    return BuildChoices(file=file, target=target, build_args=tuple(build_arg or ()), bases=tuple(base or ()))


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
) -> Options:
    return Options(
        name=name,
        root=root.absolute(),
        force=force,
        strict=strict,
        trust=not no_trust,
        platform=parse_platform(platform) if platform else None,
        plain_http=plain_http,
        max_entries=max_entries,
        max_size=a.size(max_size) if max_size is not None else None,
        network=network,
        ports=a.ports(publish),
        publish_all=publish_all,
        volumes=volumes,
        hardening=hardening,
        systemd=systemd,
        restart_unhealthy=on_unhealthy == "restart",
    )


def main() -> None:
    """Entry point: 0 done, 1 failed with one line on stderr, 2 wrong usage, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, interrupt.on_signal)
    try:
        try:
            app()
        finally:
            interrupt.too_late()
    except ConversionError as error:
        sys.stderr.write(f"docker2nspawn: {error}\n")
        sys.exit(error.status)
    except interrupt.Interrupted:
        sys.stderr.write("docker2nspawn: interrupted; nothing was installed\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
