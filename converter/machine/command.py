"""What the machine runs: command, environment, user, working directory and stop signal, as `docker run` has them."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from converter.errors import ConversionError
from converter.image.model import ImageConfig, Platform
from converter.machine.facts import DEFAULT_PATH, Facts
from converter.machine.launcher import LAUNCHER_PATH, capability_mask, launcher_arguments, launcher_for
from converter.machine.model import Account, TreeChange
from converter.machine.settings import environment_expressible, expressible, path_expressible
from converter.note import Note

_ROOT = frozenset({"", "0", "root", "0:0", "root:root"})


def is_init(config: ImageConfig, facts: Facts) -> bool:
    """Does the image boot, as nspawn understands it (Boot=yes looks for systemd, then /sbin/init)?"""
    command = (*config.entrypoint, *config.cmd)
    if not command or facts.program is None or not facts.has_os_release or config.user not in _ROOT:
        return False
    return bool(re.fullmatch(r"(/usr)?/lib/systemd/systemd", facts.program)) or bool(
        re.fullmatch(r"(/usr)?/sbin/init", command[0])
    )


def environment_of(config: ImageConfig, account: Account, *, hostname: str, boot: bool) -> tuple[str, ...]:
    """What Docker puts before the image's ENV, and those, one assignment for each name, as Docker merges them."""
    merged: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        merged["TERM"] = "xterm"
    for assignment in config.env:
        variable, equals, value = assignment.partition("=")
        if equals:
            merged[variable] = value
        else:  # a name alone takes the variable away
            merged.pop(variable, None)
    if not merged.get("HOME") and not boot:
        merged["HOME"] = account.home
    return tuple(f"{variable}={value}" for variable, value in merged.items())


def launcher_reasons(
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


def drop_inexpressible(
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


@dataclass(frozen=True)
class CommandLine:
    """Parameters= and Environment=; `launched`: the launcher starts it."""

    parameters: tuple[str, ...]
    environment: tuple[str, ...]
    launched: bool


def command_line(
    command: tuple[str, ...],
    environment: tuple[str, ...],
    account: Account,
    platform: Platform,
    *,
    bounding: frozenset[str] | None,
    boot: bool,
    changes: list[TreeChange],
    notes: list[Note],
) -> CommandLine:
    """How nspawn is told to run `command`: through the launcher, so that all is as in Docker; an init by itself.

    `bounding` are the capabilities that the launcher leaves to it; None: those that nspawn gives the launcher.
    Raises ConversionError where a launcher is needed and there is none for that processor.
    """
    if boot:
        environment, parameters = drop_inexpressible(environment, command[1:], notes)
        return CommandLine(parameters, environment, launched=False)
    if not command:
        return CommandLine((), environment, launched=False)
    launcher = launcher_for(platform.architecture)
    if launcher is None:
        if reasons := launcher_reasons(command, environment, account):
            raise ConversionError(
                f"an image for {platform} cannot be converted: {reasons[0]} needs a launcher, and there "
                "is none for that processor"
            )
        notes.append(
            Note(
                "adapted",
                "the command",
                f"there is no launcher for {platform.architecture}: nspawn's own variables stay",
            )
        )
        return CommandLine(command, environment, launched=False)
    changes.append(TreeChange(LAUNCHER_PATH, "file", content=launcher))
    notes.append(
        Note("adapted", "the command", f"runs through {LAUNCHER_PATH}, which makes its surroundings Docker's")
    )
    parameters = launcher_arguments(
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        setenv=tuple(e for e in environment if not environment_expressible(e)),
        clean=True,
        bounding=capability_mask(bounding) if bounding is not None else None,
        keep=tuple(e.partition("=")[0] for e in environment),
        argv=command,
    )
    return CommandLine(parameters, tuple(filter(environment_expressible, environment)), launched=True)


def command_notes(
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


def account_notes(config: ImageConfig, account: Account) -> Iterator[Note]:
    if config.user:
        groups = ",".join(map(str, account.groups))
        yield Note("exact", f"USER {config.user}", f"uid {account.uid}, gid {account.gid}, groups {groups}")


def platform_notes(platform: Platform, host: Platform) -> Iterator[Note]:
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


def working_directory_of(
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


def kill_signal_of(config: ImageConfig, notes: list[Note], *, boot: bool, stub: bool) -> str | None:
    if stub:  # nspawn's own init, which has a signal of its own to end, and then sends SIGTERM
        if config.stop_signal and parse_signal(config.stop_signal) != "SIGTERM":
            notes.append(Note("dropped", f"STOPSIGNAL {config.stop_signal}", "nspawn's init sends SIGTERM"))
        return "SIGRTMIN+3"
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
