"""RUN apt-get update && apt-get install -y … : the packages of a RUN that does nothing but install some.

Only what is certain is read so: a line with any expansion, redirection or other command is left to the shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from converter.dockerfile.bases import Base
from converter.dockerfile.model import Copy, Run, Setting, Stage, State, Workdir

# What the shell would expand, join or redirect, and comments. Quotes and backslashes are shlex's.
_NOT_PLAIN = set("$`*?[]{}()<>|~#!^\n\r\0")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_VERSIONED = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=[A-Za-z0-9.+:-]+)?")
# The one pattern that is understood: all that apt-get update has fetched.
_APT_LISTS = re.compile(r"(?<=\s)/var/lib/apt/lists/\*(?=[\s;&]|$)")
_APT_LISTS_GONE = "\x01"  # stands for it from there on
_QUOTED_OPERATOR = re.compile(r"""'[^']*[&;][^']*'|"[^"]*[&;][^"]*"|\\[&;]""")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9 ,.:/@+=_-]*")
# Variables by which the package manager or what it starts would do otherwise than without them.
_TELLING = re.compile(
    r"PATH|HOME|IFS|ENV|SHELL|TMPDIR|TMP|USER|LOGNAME|PWD|BASH.*|LD_.*|APT_.*|DPKG_.*|DEB.*|DNF.*|RPM.*|ZYPP.*|PACMAN.*"
    r"|PERL.*|PYTHON(?:PATH|HOME|STARTUP)|SYSTEMD_.*|MKOSI.*|.*_PROXY|.*_proxy|SOURCE_DATE_EPOCH|GNUPGHOME|SSL_.*"
)
# Directories that packages put files in; below any other name at the top a COPY is in nobody's way.
_OF_PACKAGES = frozenset(
    {"bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "efi", "work"}
    | {"opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"}
)


@dataclass(frozen=True)
class Installation:
    """What a RUN installs: `packages` as its package manager takes them, without what is only recommended."""

    number: int
    packages: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def liftable(stage: Stage, base: Base) -> Installation | None:
    """The stage's first RUN, if it installs packages, could as well run before all else, and nothing is in doubt.

    Only packages without what they recommend are taken: an option for that would count for the base as well.
    """
    for step in stage.steps:
        match step:
            case Setting():
                continue
            case Workdir():
                if not out_of_the_way(step.state.working_directory):
                    return None
            case Copy():
                if not out_of_the_way(step.destination):
                    return None
            case Run():
                packages = read(step, base)
                environment = _environment(step.state, base)
                if packages is None or environment is None:
                    return None
                if base.distribution == "arch" and _counts_on_lists(stage, step.number):
                    return None
                return Installation(step.number, packages, environment)
    return None


def _counts_on_lists(stage: Stage, number: int) -> bool:
    """May a later RUN need the lists that pacman -Sy has fetched?"""
    later = (step for step in stage.steps if isinstance(step, Run) and step.number > number)
    return any("pacman" in " ".join(step.argv) or step.script is not None for step in later)


def out_of_the_way(path: str) -> bool:
    """Is it at the top, or below a directory at the top, that no package knows?"""
    parts = PurePosixPath(path).parts
    return len(parts) > 1 and ".." not in parts and parts[1] not in _OF_PACKAGES


def _environment(state: State, base: Base) -> tuple[tuple[str, str], ...] | None:
    """What ENV and ARG add to the base's environment; None when that may change what is installed."""
    known = dict(entry.partition("=")[::2] for entry in base.config.env)
    added = []
    for name, value in (*state.env, *state.args):
        if known.get(name) == value or (name, value) == ("DEBIAN_FRONTEND", "noninteractive"):
            continue
        if not _VARIABLE.fullmatch(name) or _TELLING.fullmatch(name) or not _PLAIN_VALUE.fullmatch(value):
            return None
        added.append((name, value))
    return tuple(added)


def read(run: Run, base: Base) -> tuple[str, ...] | None:
    """The packages that `run` installs, when it is a plain line of commands of the base's package manager; else None.

    `run` has to be in shell form with the default shell, as root, with the network and without mounts.
    """
    if run.argv[:2] != ("/bin/sh", "-c") or len(run.argv) != 3 or run.script is not None:
        return None
    if (
        run.mounts
        or run.network != "default"
        or run.insecure
        or run.state.user not in {"", "root", "0", "0:0"}
    ):
        return None
    found: list[str] = []
    reader = _READERS[base.distribution]
    commands = []
    for command in _commands(run.argv[2]):
        packages = None if command is None else reader(command)
        if command is None or packages is None:
            return None
        commands.append(command)
        found += packages
    if base.distribution in {"debian", "ubuntu"} and not _leaves_no_lists(commands):
        return None
    return tuple(dict.fromkeys(found)) or None


def _leaves_no_lists(commands: list[list[str]]) -> bool:
    """Does apt fetch its lists first and are they gone afterwards? Else a later RUN may count on them, or fail."""
    rest = [command for command in commands if not _stops_at_errors(command)]
    return "update" in rest[0] and any(command[0] == "rm" for command in rest[1:])


def _commands(line: str) -> Iterator[list[str] | None]:
    """The commands of a line that are joined by && or begin with `set -e…;`; None for what is not plain."""
    if _APT_LISTS_GONE in line:
        yield None
        return
    line = _APT_LISTS.sub(_APT_LISTS_GONE, line.replace("\\\r\n", "").replace("\\\n", "").strip())
    if _NOT_PLAIN & set(line) or _QUOTED_OPERATOR.search(line):
        yield None
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
    lexer.whitespace_split = True
    lexer.commenters = ""
    command: list[str] = []
    stops = False
    try:
        for word in lexer:
            if word == "&&" or (word == ";" and (stops or _stops_at_errors(command))):
                stops = stops or _stops_at_errors(command)
                yield command or None
                command = []
            elif set(word) & set("&;"):
                yield None
                return
            else:
                command.append(word)
    except ValueError:
        yield None
        return
    yield command or None


def _stops_at_errors(command: list[str]) -> bool:
    return len(command) == 2 and command[0] == "set" and command[1] in {"-e", "-ex", "-eux", "-eu", "-xe"}


def _split(command: list[str], harmless: set[str]) -> tuple[set[str], list[str]] | None:
    """Options and other words of a command; None when an option is not among the harmless ones."""
    options = {word for word in command if word.startswith("-")}
    return (options, [word for word in command if not word.startswith("-")]) if options <= harmless else None


_Reader = Callable[[list[str]], list[str] | None]


def _apt(command: list[str]) -> list[str] | None:
    if _stops_at_errors(command):
        return []
    if command[0] == "DEBIAN_FRONTEND=noninteractive":
        command = command[1:]
    match command:
        case ["apt-get" | "apt", *rest]:
            yes, no_recommends = (
                {"-y", "--yes", "--assume-yes", "-qy", "-yq", "-yqq", "-qqy"},
                "--no-install-recommends",
            )
            parts = _split(rest, {*yes, no_recommends, "-q", "-qq", "--quiet"})
            if parts is None or not parts[1]:
                return None
            options, (verb, *names) = parts
            if verb in {"update", "clean", "autoclean"} and not names:
                return []
            if verb != "install" or not names or not options & yes or no_recommends not in options:
                return None
            # A "-" at the end takes a package away, a "+" is a part of many names.
            plain = all(_VERSIONED.fullmatch(name) and not name.endswith("-") for name in names)
            return names if plain else None
        case ["rm", "-rf", *paths] if paths:
            return [] if all(_is_apt_rubbish(path) for path in paths) else None
    return None


def _is_apt_rubbish(path: str) -> bool:
    """Is it what only apt-get update has left behind, which is not there when packages are installed beforehand?"""
    return path in {_APT_LISTS_GONE, "/var/lib/apt/lists", "/var/lib/apt/lists/", "/var/cache/apt/archives"}


def _dnf(command: list[str]) -> list[str] | None:
    if _stops_at_errors(command):
        return []
    if command[0] not in {"dnf", "microdnf", "dnf5", "yum"}:
        return None
    weak = {
        "--setopt=install_weak_deps=False",
        "--setopt=install_weak_deps=0",
        "--setopt=install_weak_deps=false",
    }
    yes, docs = {"-y", "--assumeyes"}, {"--nodocs", "--setopt=tsflags=nodocs"}
    parts = _split(command[1:], weak | yes | docs | {"-q", "--quiet"})
    if parts is None or not parts[1]:
        return None
    options, (verb, *names) = parts
    if verb == "clean" and names == ["all"]:
        return []
    if verb != "install" or not names or not options & yes or not options & weak:
        return None
    return names if all(_PACKAGE.fullmatch(name) for name in names) else None


def _zypper(command: list[str]) -> list[str] | None:
    if _stops_at_errors(command):
        return []
    if command[0] != "zypper":
        return None
    yes, no_recommends = {"-n", "--non-interactive", "-y", "--no-confirm"}, "--no-recommends"
    parts = _split(command[1:], {*yes, no_recommends, "-q", "--quiet", "-a", "--all"})
    if parts is None or not parts[1]:
        return None
    options, (verb, *names) = parts
    if verb in {"refresh", "ref", "clean"} and not names:
        return []
    if verb not in {"install", "in"} or not names or not options & yes or no_recommends not in options:
        return None
    return names if all(_PACKAGE.fullmatch(name) for name in names) else None


def _pacman(command: list[str]) -> list[str] | None:
    if _stops_at_errors(command):
        return []
    if command[0] != "pacman" or len(command) < 2:
        return None
    verb, *rest = command[1:]
    parts = _split(rest, {"--noconfirm", "--needed", "-q"})
    if parts is None:
        return None
    options, names = parts
    if verb in {"-Scc", "-Sc"} and not names:
        return []
    # -Syu would be what mkosi does, too: it installs from an up-to-date list only.
    if verb not in {"-S", "-Sy", "-Syu"} or "--noconfirm" not in options or not names:
        return None
    return names if all(_PACKAGE.fullmatch(name) for name in names) else None


def _none(_: list[str]) -> list[str] | None:
    """mkosi makes no such system."""
    return None


_READERS: dict[str, _Reader] = {
    "debian": _apt,
    "ubuntu": _apt,
    "arch": _pacman,
    "fedora": _dnf,
    "rocky": _dnf,
    "alma": _dnf,
    "centos": _dnf,
    "opensuse": _zypper,
    "alpine": _none,
}
