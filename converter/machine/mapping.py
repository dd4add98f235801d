"""From what an image is to what systemd-nspawn must know: pure, no disk, no network.

Every field of the image's config ends in the Machine, in a TreeChange or in a Note that says why not. The
facts about nspawn that this stands on are in docs/mapping.md.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, Platform
from converter.machine.account import resolve_account
from converter.machine.container import container_notes
from converter.machine.facts import DEFAULT_PATH, Facts
from converter.machine.launcher import LAUNCHER_PATH, launcher_arguments, launcher_for
from converter.machine.model import Account, Bind, Machine, TreeChange
from converter.machine.settings import (
    environment_expressible,
    expressible,
    hostname_expressible,
    path_expressible,
)
from converter.note import Note

# What nspawn leaves to root and Docker does not: systemd.nspawn(5) Capability= against moby's
# oci/caps/defaults.go.
DROPPED_CAPABILITIES = (
    "CAP_AUDIT_CONTROL",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TTY_CONFIG",
)

# Set by nspawn and not by Docker; where the launcher runs anyway it takes them away again.
_ADDED_BY_NSPAWN = ("USER", "LOGNAME", "LANG", "TERM")

_STOP_TIMEOUT = 10  # seconds, as `docker stop`
_RUN_COPY = "/usr/lib/docker2nspawn/run"
_RUN_OF_NSPAWN = frozenset({"host", "systemd"})  # nspawn's own mounts and sockets live there


@dataclass(frozen=True)
class Mapped:
    """The whole of what an image becomes: settings, changes to its tree, and what to tell the user."""

    machine: Machine
    changes: tuple[TreeChange, ...]
    notes: tuple[Note, ...]


def map_image(image: Image, facts: Facts, *, name: str, host: Platform) -> Mapped:
    """Decide everything about the machine `name` that `image` becomes on a `host` of that platform.

    Raises ConversionError for an image that `docker run` would refuse too, or whose processor has no launcher
    where one is needed.
    """
    config = image.config
    notes: list[Note] = []
    if image.container is None:
        config, ignored = _without_client_fields(config)
        notes += ignored
    changes: list[TreeChange] = []
    boot = _is_init(config, facts)
    account = resolve_account(config.user, facts.passwd, facts.group)
    command = (*config.entrypoint, *config.cmd)
    environment = _environment(config, account, hostname=config.hostname or name, boot=boot)

    for path in sorted(facts.blocked):
        raise ConversionError(
            f"{path} must be a directory, but a file of the image is in its way; Docker refuses it too"
        )
    notes += _command_notes(config, command, boot=boot, facts=facts)
    notes += _account_notes(config, account)
    notes += _platform_notes(image.platform, host)
    reasons = () if boot else _launcher_reasons(command, environment, account)
    if boot:
        parameters = command[1:]
        environment, parameters = _drop_inexpressible(environment, parameters, notes)
    elif reasons and command:
        launcher = launcher_for(image.platform.architecture)
        if launcher is None:
            raise ConversionError(
                f"an image for {image.platform} cannot be converted: {reasons[0]} needs a launcher, and there "
                "is none for that processor"
            )
        changes.append(TreeChange(LAUNCHER_PATH, "file", content=launcher))
        notes += [Note("adapted", "the command", f"runs through {LAUNCHER_PATH}: {'; '.join(reasons)}")]
        set_by_image = {assignment.partition("=")[0] for assignment in environment}
        parameters = launcher_arguments(
            uid=account.uid,
            gid=account.gid,
            groups=account.groups,
            setenv=tuple(e for e in environment if not environment_expressible(e)),
            unsetenv=tuple(n for n in _ADDED_BY_NSPAWN if n not in set_by_image),
            argv=command,
        )
        environment = tuple(e for e in environment if environment_expressible(e))
    else:
        parameters = command
    for assignment in config.env:
        notes.append(Note("exact", f"ENV {assignment.partition('=')[0]}", "Environment="))

    working_directory = _working_directory(config, facts, changes, notes)
    kill_signal = _kill_signal(config, notes, boot=boot)
    _volumes(config, facts, changes, notes)
    binds = () if boot else _run_content(facts, changes, notes)
    _tree_gaps(facts, changes, notes, name=name)
    notes += _other_fields(config)
    if image.container is not None:
        notes += container_notes(image.container)
    notes += [Note("dropped", subject="the source", text=loss) for loss in image.losses]
    machine = Machine(
        name=name,
        boot=boot,
        parameters=parameters,
        environment=environment,
        working_directory=working_directory,
        kill_signal=kill_signal,
        hostname=config.hostname if config.hostname and hostname_expressible(config.hostname) else None,
        drop_capability=() if boot else DROPPED_CAPABILITIES,
        private_users="no",
        resolv_conf="copy-host",
        timezone="off",
        link_journal=None if boot else "no",
        binds=binds,
        virtual_ethernet=False,
        timeout_stop=config.stop_timeout if config.stop_timeout is not None else _STOP_TIMEOUT,
        unit_environment={"SYSTEMD_NSPAWN_TMPFS_TMP": "0"},
    )
    return Mapped(machine, tuple(changes), tuple(notes))


def _without_client_fields(config: ImageConfig) -> tuple[ImageConfig, list[Note]]:
    """Fields that an image may carry along but `docker run` takes only from its own command line (moby: merge)."""
    default = ImageConfig()
    fields = {
        "hostname": "Hostname",
        "domainname": "Domainname",
        "mac_address": "MacAddress",
        "network_disabled": "NetworkDisabled",
        "tty": "Tty",
        "open_stdin": "OpenStdin",
        "stop_timeout": "StopTimeout",
    }
    there = [field for field in fields if getattr(config, field) != getattr(default, field)]
    notes = [
        Note("exact", fields[field], "not taken from an image by `docker run` either") for field in there
    ]
    changes: dict[str, Any] = {field: getattr(default, field) for field in there}
    return replace(config, **changes), notes


def _is_init(config: ImageConfig, facts: Facts) -> bool:
    """Does the image boot, as nspawn understands it (Boot=yes looks for systemd, then /sbin/init)?"""
    command = (*config.entrypoint, *config.cmd)
    if not command or facts.program is None or not facts.has_os_release or config.user not in _ROOT:
        return False
    return bool(re.fullmatch(r"(/usr)?/lib/systemd/systemd", facts.program)) or bool(
        re.fullmatch(r"(/usr)?/sbin/init", command[0])
    )


_ROOT = frozenset({"", "0", "root", "0:0", "root:root"})


def _environment(config: ImageConfig, account: Account, *, hostname: str, boot: bool) -> tuple[str, ...]:
    """What Docker puts before the image's ENV, and those, one assignment for each name, as Docker merges them."""
    merged: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    for assignment in config.env:
        variable, equals, value = assignment.partition("=")
        if equals:
            merged[variable] = value
        else:  # a name alone takes the variable away
            merged.pop(variable, None)
    if not merged.get("HOME") and not boot:
        merged["HOME"] = account.home
    return tuple(f"{variable}={value}" for variable, value in merged.items())


def _launcher_reasons(
    command: tuple[str, ...], environment: Iterable[str], account: Account
) -> tuple[str, ...]:
    """Why nspawn alone cannot run this exactly; empty when it can."""
    reasons = []
    if (account.uid, account.gid, account.groups) != (0, 0, (0,)):
        ids = ",".join(map(str, account.groups))
        reasons.append(f"uid {account.uid}, gid {account.gid} and groups {ids} as Docker resolves them")
    if not all(map(expressible, command)):
        reasons.append("the command line holds characters that a settings file cannot")
    names = [e.partition("=")[0] for e in environment if not environment_expressible(e)]
    if names:
        reasons.append(f"a settings file cannot hold the value or the name of ENV {', '.join(names)}")
    return tuple(reasons)


def _drop_inexpressible(
    environment: tuple[str, ...], parameters: tuple[str, ...], notes: list[Note]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """An init must be PID 1 by itself, without the launcher: leave out what a settings file cannot hold."""
    for assignment in environment:
        if not environment_expressible(assignment):
            variable = assignment.partition("=")[0]
            notes.append(
                Note(
                    "dropped",
                    f"ENV {variable}",
                    "a settings file cannot hold it, and an init gets no launcher",
                )
            )
    for parameter in parameters:
        if not expressible(parameter):
            notes.append(
                Note("dropped", f"CMD {parameter!r}", "a settings file cannot hold it; put it in a unit")
            )
    return tuple(filter(environment_expressible, environment)), tuple(filter(expressible, parameters))


def _command_notes(
    config: ImageConfig, command: tuple[str, ...], *, boot: bool, facts: Facts
) -> Iterator[Note]:
    if not command:
        yield Note(
            "adapted",
            "no ENTRYPOINT and no CMD",
            "`docker run` needs a command too; nspawn starts a shell, or give it one: systemd-nspawn -M NAME CMD",
        )
    for subject, words in (("ENTRYPOINT", config.entrypoint), ("CMD", config.cmd)):
        if words and boot:
            yield Note(
                "adapted", subject, "the command is an init: Boot=yes, with all of nspawn's capabilities"
            )
        elif words:
            yield Note("exact", subject, "Parameters=")
    if command and facts.program is None:
        yield Note(
            "adapted",
            "the command",
            f"{command[0]!r} is not in the image: the machine will fail as in Docker",
        )
    if config.args_escaped:
        yield Note("exact", "ArgsEscaped", "means something on Windows only")


def _account_notes(config: ImageConfig, account: Account) -> Iterator[Note]:
    if config.user:
        groups = ",".join(map(str, account.groups))
        yield Note("exact", f"USER {config.user}", f"uid {account.uid}, gid {account.gid}, groups {groups}")


def _platform_notes(platform: Platform, host: Platform) -> Iterator[Note]:
    compatible = {("386", "amd64"), ("arm", "arm64")}
    if (
        platform.architecture != host.architecture
        and (platform.architecture, host.architecture) not in compatible
    ):
        yield Note(
            "adapted",
            f"platform {platform}",
            f"this host is {host}: it needs qemu-user with binfmt to run it",
        )


def _working_directory(
    config: ImageConfig, facts: Facts, changes: list[TreeChange], notes: list[Note]
) -> str | None:
    if not config.working_dir:
        return None
    path = posixpath.normpath(f"/{config.working_dir.lstrip('/')}")  # as Docker cleans it
    if not path_expressible(path):
        notes.append(Note("dropped", f"WORKDIR {path!r}", "a settings file cannot hold this path"))
        return None
    if config.working_dir in facts.directories:
        notes.append(Note("exact", f"WORKDIR {path}", "WorkingDirectory="))
    else:
        changes.append(TreeChange(path, "dir"))
        notes.append(Note("exact", f"WORKDIR {path}", "WorkingDirectory=; made, as Docker makes it"))
    return path


def parse_signal(text: str) -> str | None:
    """A signal as STOPSIGNAL names it (SIGTERM, TERM, 15, RTMIN+3), in systemd's spelling; None when it is none."""
    bare = text.strip().upper().removeprefix("SIG")
    if bare.isascii() and bare.isdigit() and len(bare) < 4:
        number = int(bare)
        try:
            return signal.Signals(number).name
        except ValueError:
            real_time = number - 34  # glibc's SIGRTMIN, and systemd's
            return f"SIGRTMIN+{real_time}" if 0 < real_time <= 30 else None
    if match := re.fullmatch(r"RT(MIN|MAX)(?:([+-])(\d{1,2}))?", bare):
        base = 34 if match[1] == "MIN" else 64
        number = base + int((match[2] or "+") + (match[3] or "0"))
        return f"SIGRTMIN+{number - 34}" if 34 <= number <= 64 else None
    return f"SIG{bare}" if f"SIG{bare}" in signal.Signals.__members__ else None


def _kill_signal(config: ImageConfig, notes: list[Note], *, boot: bool) -> str | None:
    # nspawn without KillSignal= ends a machine that does not boot at once, without any signal to it.
    default = None if boot else "SIGTERM"
    if not config.stop_signal:
        return default
    if (name := parse_signal(config.stop_signal)) is not None:
        notes.append(Note("exact", f"STOPSIGNAL {config.stop_signal}", f"KillSignal={name}"))
        return name
    notes.append(
        Note("dropped", f"STOPSIGNAL {config.stop_signal}", "no such signal; SIGTERM is sent instead")
    )
    return default


def _volumes(config: ImageConfig, facts: Facts, changes: list[TreeChange], notes: list[Note]) -> None:
    for volume in config.volumes:
        if volume not in facts.directories:
            changes.append(TreeChange("/" + volume.lstrip("/"), "dir"))
        notes.append(
            Note(
                "adapted",
                f"VOLUME {volume}",
                "lies in the machine's own tree, with the image's content: kept over restarts, gone with the machine",
            )
        )


def _run_content(facts: Facts, changes: list[TreeChange], notes: list[Note]) -> tuple[Bind, ...]:
    """nspawn mounts an empty tmpfs on /run: what the image has there is kept elsewhere and bound over it."""
    binds = []
    for entry in facts.run:
        if entry in _RUN_OF_NSPAWN or not path_expressible(f"{_RUN_COPY}/{entry}"):
            notes.append(Note("dropped", f"/run/{entry}", "nspawn's own /run hides it"))
            continue
        changes.append(TreeChange(f"{_RUN_COPY}/{entry}", "copy", content=f"/run/{entry}".encode()))
        binds.append(Bind(f"+{_RUN_COPY}/{entry}", f"/run/{entry}"))
    if binds:
        names = ", ".join(bind.destination for bind in binds)
        notes.append(Note("adapted", "/run", f"nspawn empties it: {names} come from a copy in {_RUN_COPY}"))
    return tuple(binds)


def _tree_gaps(facts: Facts, changes: list[TreeChange], notes: list[Note], *, name: str) -> None:
    if not facts.has_usr and not any(change.path.startswith("/usr/") for change in changes):
        changes.append(TreeChange("/usr", "dir"))
    if not facts.has_usr:
        notes.append(Note("adapted", "/usr", "made, because nspawn refuses a tree without it"))
    if not facts.has_hosts:
        # Docker writes /etc/hosts at run time; without one, even localhost has no address.
        text = f"127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        changes.append(TreeChange("/etc/hosts", "file", mode=0o644, content=text.encode()))
        notes.append(Note("adapted", "/etc/hosts", "made, as Docker makes it at run time"))


def _other_fields(config: ImageConfig) -> Iterator[Note]:
    """The fields without a setting of their own in nspawn."""
    for port in config.exposed_ports:
        yield Note(
            "adapted", f"EXPOSE {port}", "the machine shares the host's network: the port is the host's own"
        )
    if config.labels:
        names = ", ".join(config.labels)
        yield Note("adapted", f"LABEL {names}", "nspawn has no labels; kept in the machine's record")
    if (check := config.healthcheck) is not None and check.test[:1] != ("NONE",):
        yield Note(
            "dropped",
            "HEALTHCHECK",
            f"nspawn has none; let a timer run {' '.join(check.test[1:]) or 'a check'!r} in the machine with "
            "`systemd-run --machine` or nsenter",
        )
    elif check is not None:
        yield Note("exact", "HEALTHCHECK NONE", "nspawn has no health checks")
    build_only = "matters to builds from this image, not to a running one; kept in the machine's record"
    if config.shell:
        yield Note("adapted", "SHELL", build_only)
    for _ in config.on_build[:1]:
        yield Note("adapted", "ONBUILD", build_only)
    for subject, value in (
        ("MAINTAINER", config.author),
        ("created", config.created),
        ("os.version", config.os_version),
        ("os.features", ",".join(config.os_features)),
    ):
        if value:
            yield Note("adapted", subject, "says nothing to nspawn; kept in the machine's record")
    if config.hostname and hostname_expressible(config.hostname):
        yield Note("exact", f"Hostname {config.hostname}", "Hostname=")
    elif config.hostname:
        yield Note(
            "dropped", f"Hostname {config.hostname}", "systemd takes only letters, digits, '-' and '.'"
        )
    if config.domainname:
        yield Note("dropped", f"Domainname {config.domainname}", "nspawn sets no NIS domain name")
    if config.mac_address:
        yield Note("dropped", f"MacAddress {config.mac_address}", "the machine shares the host's network")
    if config.network_disabled:
        yield Note(
            "dropped",
            "NetworkDisabled",
            "the machine shares the host's network; set Private=yes to cut it off",
        )
    for subject, wanted in (("Tty", config.tty), ("OpenStdin", config.open_stdin)):
        if wanted:
            yield Note("dropped", subject, "a service has no terminal; for one run systemd-nspawn -M NAME")
    if config.stop_timeout is not None:
        yield Note("exact", f"StopTimeout {config.stop_timeout}", "TimeoutStopSec= in the unit's drop-in")
    for path, value in config.other.items():
        text = repr(value)
        yield Note(
            "dropped",
            path,
            f"unknown to Docker and nspawn; {text if len(text) < 60 else 'its value'} is in the record",
        )
