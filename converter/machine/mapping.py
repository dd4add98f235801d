"""From what an image is to what systemd-nspawn must know: pure, no disk, no network.

Every field of the image's config, and of a container's settings, ends in the Machine, in a TreeChange or in a Note that
says why not. The facts about nspawn that this stands on are in docs/mapping.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, Platform
from converter.machine import command as commands
from converter.machine.account import resolve_account, resolve_groups
from converter.machine.capabilities import nspawn_capabilities
from converter.machine.container import ContainerSettings, container_settings
from converter.machine.facts import Facts
from converter.machine.fields import other_fields, without_client_fields
from converter.machine.health import health_files, health_unit_settings
from converter.machine.launcher import LAUNCHER_PATH, launcher_for
from converter.machine.model import (
    Bind,
    File,
    Healthcheck,
    Machine,
    Network,
    Port,
    TemporaryFileSystem,
    TreeChange,
)
from converter.machine.mounts import Volumes
from converter.machine.network import exposed_port, network_files, network_unit_settings
from converter.machine.ports import NetworkKind
from converter.machine.secrets import looks_secret
from converter.machine.settings import hostname_expressible
from converter.machine.surroundings import (
    host_proof_changes,
    hosts_changes,
    image_volumes,
    run_content,
    volume_bind,
)
from converter.machine.syscalls import system_call_policy
from converter.note import Note

Hardening = Literal["default", "strict"]

_STOP_TIMEOUT = 10  # seconds, as `docker stop`
_SECOND = 1_000_000_000  # Docker's times are in nanoseconds

# What Docker's own unit gives dockerd, and so containers (moby contrib/init/systemd/docker.service); nspawn's
# default is the kernel's.
_LIMITS = {"LimitNOFILE": "1048576", "LimitNPROC": "infinity", "LimitCORE": "infinity"}

# For becoming who the program is, and giving it its standard streams.
_LAUNCHER_NEEDS = frozenset({"CAP_CHOWN", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"})

# Where the image has no systemd to ask, 252 would choose the legacy cgroups.
_SWITCHES = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


@dataclass(frozen=True)
class RunOptions:
    """How the machine is to run, beyond what the image or container says; the names are the command line's.

    `network` None: as in Docker. `systemd` is the major version on the target host. `address` is the one to use in a
    private network; `resolv_conf` nspawn's ResolvConf= that gives the host's name servers. `trusted`: the settings file
    will be; else nspawn makes a user namespace, whatever it says.
    """

    network: NetworkKind | None = None
    ports: tuple[Port, ...] = ()
    publish_all: bool = False
    volumes: Volumes = "copy"
    hardening: Hardening = "default"
    systemd: int = 252
    restart_unhealthy: bool = False
    address: str = "10.213.0.2"
    resolv_conf: str = "copy-host"
    trusted: bool = True


@dataclass(frozen=True)
class Mapped:
    """The whole of what an image becomes: settings, changes to its tree, further files, and what to tell the user.

    `systemd` is the major version that the settings are for.
    """

    machine: Machine
    changes: tuple[TreeChange, ...]
    notes: tuple[Note, ...]
    files: tuple[File, ...]
    systemd: int


def map_image(
    image: Image,
    facts: Facts,
    *,
    name: str,
    host: Platform,
    heading: str,
    options: RunOptions = RunOptions(),
) -> Mapped:
    """Decide everything about the machine `name` that `image` becomes on a `host` of that platform.

    `heading` is one comment line for the files. Raises ConversionError for an image that `docker run` would refuse
    too, or whose processor has no launcher where one is needed.
    """
    config = image.config
    notes: list[Note] = []
    changes: list[TreeChange] = []
    if image.container is None:
        config, ignored = without_client_fields(config)
        notes += ignored
    for path in sorted(facts.blocked):
        raise ConversionError(
            f"{path} must be a directory, but a file of the image is in its way; Docker refuses it too"
        )
    boot = commands.is_init(config, facts)
    settings = container_settings(
        image.container or {}, systemd=options.systemd, volumes=options.volumes, machine_name=name
    )
    if image.container is not None:
        _refuse_moving_data(image.container, settings)
    account = resolve_account(config.user, facts.passwd, facts.group)
    if settings.group_add:
        account = replace(account, groups=resolve_groups(account, settings.group_add, facts.group))
    command = (*config.entrypoint, *config.cmd)
    hostname = config.hostname if config.hostname and hostname_expressible(config.hostname) else None
    environment = commands.environment_of(config, account, hostname=config.hostname or name, boot=boot)
    notes += commands.command_notes(config, command, boot=boot, facts=facts)
    notes += commands.account_notes(config, account)
    notes += commands.platform_notes(image.platform, host)
    notes += [Note("exact", f"ENV {e.partition('=')[0]}", "Environment=") for e in config.env]

    lacking = _LAUNCHER_NEEDS - settings.capabilities  # the launcher gets it, and drops it
    run = commands.command_line(
        command,
        environment,
        account,
        image.platform,
        bounding=settings.capabilities if lacking else None,
        boot=boot,
        changes=changes,
        notes=notes,
    )
    mounted = {*settings.mounted}
    volumes = settings.volumes + image_volumes(
        config,
        name,
        taken=mounted,
        kept=options.volumes != "none",
        facts=facts,
        changes=changes,
        notes=notes,
    )
    mounted |= {volume.destination for volume in volumes}
    files: tuple[File, ...] = ()
    binds = () if boot else run_content(facts, mounted, changes, notes)
    if run.launched and lacking:
        # The one in the tree is the program's to change, and it has not all that the launcher is given.
        launch = f"var/lib/docker2nspawn/machines/{name}.launch"
        files += (File(launch, launcher_for(image.platform.architecture) or b"", 0o755),)
        binds += (Bind(f"/{launch}", LAUNCHER_PATH, read_only=True),)
    changes += host_proof_changes(facts, read_only=bool(settings.read_only), notes=notes)
    if not facts.has_usr:
        if not any(change.path.startswith("/usr/") for change in changes):
            changes.append(TreeChange("/usr", "dir"))
        notes.append(Note("adapted", "/usr", "made, because nspawn refuses a tree without it"))

    mode = options.network or ("none" if config.network_disabled else settings.network)
    network = _network(mode, config, settings, options, notes)
    if not settings.covers("/etc/hosts"):
        changes += hosts_changes(
            hostname or name, config.domainname, network.address if network else "127.0.1.1", settings.hosts
        )
    resolv_conf = options.resolv_conf
    if settings.covers("/etc/resolv.conf") or settings.resolv_conf is not None:
        resolv_conf = "off"
    elif settings.read_only:  # nothing can be copied into it
        resolv_conf = resolv_conf.replace("copy-", "bind-")
    if not settings.covers("/etc/resolv.conf"):
        content = (settings.resolv_conf or "").encode()
        changes.append(TreeChange("/etc/resolv.conf", "file", mode=0o644, content=content))
    unit = settings.unit
    if boot and image.container is None:  # an init may want what the template gives to machines
        unit = tuple(setting for setting in unit if setting.key != "DeviceAllow")

    machine = Machine(
        name=name,
        boot=boot,
        process_two=settings.process_two and not boot,
        parameters=run.parameters,
        environment=run.environment,
        working_directory=commands.working_directory_of(config, facts, changes, notes),
        kill_signal=commands.kill_signal_of(config, notes, boot=boot, stub=settings.process_two and not boot),
        hostname=hostname,
        no_new_privileges=settings.no_new_privileges,
        limits=settings.limits if boot else {**_LIMITS, **settings.limits},
        cpu_affinity=settings.cpu_affinity,
        oom_score_adjust=settings.oom_score_adjust,
        private_users="no",
        resolv_conf=resolv_conf,
        timezone="off",
        link_journal=None if boot else "no",
        read_only=settings.read_only or None,
        binds=(*binds, *settings.binds, *map(volume_bind, volumes)),
        temporary_file_systems=_temporary_file_systems(settings, boot=boot),
        volumes=volumes,
        virtual_ethernet=False,
        network=network,
        timeout_stop=config.stop_timeout if config.stop_timeout is not None else _STOP_TIMEOUT,
        unit_environment={
            **({} if boot else _SWITCHES),
            "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
            **settings.unit_environment,
        },
        unit=unit,
        secret=bool(secrets := looks_secret(environment)),
    )
    if secrets:
        notes.append(
            Note(
                "adapted",
                f"ENV {', '.join(secrets)}",
                "looks like a secret: only root can read the settings file",
            )
        )
    kept = settings.capabilities | lacking if run.launched else settings.capabilities
    machine = _secured(machine, kept, settings, options, notes)
    if network is not None:
        machine = replace(machine, unit=machine.unit + network_unit_settings(name))
        files += network_files(
            name, network, heading, sysctls=settings.sysctls, mac_address=config.mac_address
        )
    launcher = launcher_for(host.architecture)
    runnable = run.launched and launcher is not None
    if (check := _healthcheck(config, options, notes, boot=boot, runnable=runnable)) is not None:
        machine = replace(machine, healthcheck=check, unit=machine.unit + health_unit_settings(name))
        files += health_files(
            name,
            check,
            account=account,
            environment=environment,
            working_directory=machine.working_directory or "/",
            bounding=settings.capabilities,
            no_new_privileges=bool(machine.no_new_privileges),
            heading=heading,
            launcher=launcher or b"",
            limits=machine.limits,
            confined=not (settings.seccomp_unconfined or settings.privileged),
            private_users=machine.private_users == "pick",
        )
    notes += other_fields(config)
    notes += settings.notes
    notes += [Note("dropped", subject="the source", text=loss) for loss in image.losses]
    unique = {file.path: file for file in files}  # the launcher may be wanted twice
    return Mapped(machine, tuple(changes), tuple(notes), tuple(unique.values()), options.systemd)


def _refuse_moving_data(container: Mapping[str, Any], settings: ContainerSettings) -> None:
    """A copy of what is being written is worth nothing: of a database least of all."""
    state = container.get("State")
    if not isinstance(state, Mapping) or not state.get("Running") or state.get("Paused"):
        return
    for volume in settings.volumes:
        if volume.source is not None:
            name = str(container.get("Name", "")).lstrip("/")
            raise ConversionError(
                f"container {name} is running and may write to its volume {volume.name}; first `docker stop {name}`, "
                "or use --volumes bind or --volumes none"
            )


def _temporary_file_systems(settings: ContainerSettings, *, boot: bool) -> tuple[TemporaryFileSystem, ...]:
    # /run is a tmpfs with nspawn's own in it already.
    mounted = [tmpfs for tmpfs in settings.temporary_file_systems if tmpfs.path not in {"/run", "/var/run"}]
    if not (boot or settings.system_paths_writable or settings.privileged):
        mounted.append(TemporaryFileSystem("/sys/firmware", "ro"))  # nspawn masks what Docker does, but this
    return tuple(mounted)


def _network(
    mode: NetworkKind,
    config: ImageConfig,
    settings: ContainerSettings,
    options: RunOptions,
    notes: list[Note],
) -> Network | None:
    """The machine's own network, and what becomes of ports."""
    exposed = [port for text in config.exposed_ports for port in exposed_port(text)]
    ports = [*options.ports, *settings.ports]
    if options.publish_all:
        published = {(port.port, port.protocol) for port in ports}
        ports += [port for port in exposed if (port.port, port.protocol) not in published]
    if config.exposed_ports:
        text = {
            "host": "the machine shares the host's network: the port is the host's own",
            "none": "no network, no port",
            "private": "open to the host and other machines; for others publish it: -p or --publish-all",
        }[mode]
        notes.append(
            Note("adapted" if mode == "host" else "exact", f"EXPOSE {', '.join(config.exposed_ports)}", text)
        )
    if mode != "private":
        if ports:
            shown = ", ".join(f"{port.host_port}:{port.port}/{port.protocol}" for port in ports)
            notes.append(Note("dropped", f"publish {shown}", f"nothing is published with --network {mode}"))
        return Network("") if mode == "none" else None
    for port in ports:
        where = f"{port.host_address or '*'}:{port.host_port}"
        notes.append(Note("exact", f"port {port.port}/{port.protocol}", f"published on {where} of the host"))
    notes.append(
        Note("exact", "network", f"private: {options.address} behind the host; --network host shares it")
    )
    return Network(options.address, tuple(ports))


def _secured(
    machine: Machine,
    kept: frozenset[str],
    settings: ContainerSettings,
    options: RunOptions,
    notes: list[Note],
) -> Machine:
    """The capabilities `kept` and Docker's system calls; with --hardening strict, less than those."""
    if machine.boot and not settings.privileged:
        return machine
    capability, drop_capability = nspawn_capabilities(kept)
    policy = system_call_policy(
        kept,
        version=options.systemd,
        privileged_seccomp=settings.seccomp_unconfined or settings.privileged,
    )
    machine = replace(
        machine,
        capability=capability,
        drop_capability=drop_capability,
        system_call_filter=policy.system_call_filter,
        restrict_address_families=policy.restrict_address_families,
        unit=machine.unit + policy.unit,
    )
    if options.hardening == "strict":
        machine = _strict(machine, notes)
    if options.hardening == "strict" or not options.trusted:  # nspawn itself has to make the user namespace
        unit = tuple(setting for setting in machine.unit if setting.key != "RestrictNamespaces")
        machine = replace(machine, unit=unit)
    return machine


def _strict(machine: Machine, notes: list[Note]) -> Machine:
    """User ids of its own, by id-mapped mounts, and no way to more privileges."""
    notes.append(
        Note("adapted", "hardening", "user ids of the machine's own (id-mapped), NoNewPrivileges=yes")
    )
    return replace(
        machine,
        private_users="pick",
        private_users_ownership="map",
        no_new_privileges=True,
        binds=tuple(_id_mapped(bind) for bind in machine.binds),
    )


def _id_mapped(bind: Bind) -> Bind:
    if bind.source.startswith("+"):  # the tree is id-mapped already
        return bind
    return replace(bind, options=f"{bind.options},idmap".lstrip(","))


def _healthcheck(
    config: ImageConfig, options: RunOptions, notes: list[Note], *, boot: bool, runnable: bool
) -> Healthcheck | None:
    check = config.healthcheck
    if check is None:
        return None
    if check.test[:1] == ("NONE",):
        notes.append(Note("exact", "HEALTHCHECK NONE", "there is none"))
        return None
    if check.test[:1] == ("CMD-SHELL",):
        command = (*(config.shell or ("/bin/sh", "-c")), *check.test[1:2])
    else:
        command = check.test[1:]
    if not command or boot or not runnable:
        notes.append(
            Note(
                "dropped", "HEALTHCHECK", "an init looks after itself" if boot else "there is nothing to run"
            )
        )
        return None
    default = Healthcheck(command)
    made = Healthcheck(
        command,
        interval=check.interval / _SECOND or default.interval,
        timeout=check.timeout / _SECOND or default.timeout,
        start_period=check.start_period / _SECOND,
        start_interval=check.start_interval / _SECOND or default.start_interval,
        retries=check.retries or default.retries,
        restart=options.restart_unhealthy,
    )
    consequence = "the machine is restarted" if made.restart else "only the state shows it, as in Docker"
    notes.append(
        Note(
            "adapted",
            "HEALTHCHECK",
            f"a timer runs it every {made.interval:g} s; unhealthy after {made.retries} failures: {consequence}",
        )
    )
    return made
