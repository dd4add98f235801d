"""The machine's tree: is it there, is it one that nspawn starts, and is there what it shall run."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter import inside
from converter.check import programs
from converter.check.finding import Finding, problem, warning
from converter.check.installed import Installed
from converter.check.parse import is_no, unescaped
from converter.machine.launcher import LAUNCHER_PATH

_INITS = ("usr/lib/systemd/systemd", "lib/systemd/systemd", "sbin/init")  # nspawn.c, in this order
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_THE_TREES = ("/dev", "/proc", "/run", "/sys")  # nspawn mounts over them
_SHIFT = 0x10000  # nspawn shifts user ids by multiples of this


@dataclass(frozen=True)
class _Command:
    """What the launcher or nspawn starts: `search` is the PATH, `directory` where it stands."""

    program: str
    search: str
    directory: str


def tree_findings(machine: Installed) -> Iterator[Finding]:
    """All about the tree."""
    place = f"/{machine.tree_path}"
    tree = machine.tree
    if tree is None:
        what = "is not a directory" if inside.status(machine.root, machine.tree_path) else "is missing"
        yield problem("tree", f"{place} {what}: there is nothing to start", machine.again)
        return
    if machine.settings_path is None:
        return  # which is a finding of its own, and nobody knows what shall run
    if machine.boot and not any(
        inside.status(tree, path) for path in ("etc/os-release", "usr/lib/os-release")
    ):
        yield problem(
            "os-release",
            "Boot=yes, but the tree has no os-release file, so nspawn refuses it",
            "add os-release(5) to the image and make it again, or set Boot=no and Parameters=",
        )
    elif not machine.boot and inside.status(tree, "usr") is None:
        yield problem("/usr", "the tree has no /usr, so nspawn refuses it", f"mkdir {place}/usr")
    yield from _program_findings(machine, tree)
    yield from _user_findings(machine, tree)
    yield from _owner_findings(machine, tree)


def _program_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    if machine.boot:
        found = next((path for path in _INITS if _runs(tree, f"/{path}")), None)
        if found is None:
            yield problem(
                "init",
                "Boot=yes, but the tree has no systemd and no /sbin/init",
                "install an init in the image and make it again, or set Boot=no and Parameters=",
            )
        else:
            yield from _processor_findings(machine, tree, f"/{found}")
        return
    parameters = machine.words("Parameters")
    if not parameters:
        yield problem(
            "command",
            "Parameters= is missing or nspawn cannot read it: it would start a shell",
            f"put the command into /{machine.settings_path or machine.own_settings}, or {machine.again}",
        )
        return
    if parameters[0] == LAUNCHER_PATH:
        yield from _launcher_findings(machine, tree)
    yield from _command_findings(machine, tree, _command(machine, parameters))


def _launcher_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    found = inside.status(tree, LAUNCHER_PATH)
    if found is None:
        yield problem("launcher", f"{LAUNCHER_PATH} is missing in the tree: nothing starts", machine.again)
    elif not _executable(found):
        yield problem(
            "launcher",
            f"{LAUNCHER_PATH} in the tree is not executable: nothing starts",
            machine.again,
        )
    else:
        yield from _processor_findings(machine, tree, LAUNCHER_PATH)


def _command(machine: Installed, parameters: list[str]) -> _Command:
    environment = dict(word.partition("=")[::2] for word in machine.words("Environment"))
    directory = machine.value("WorkingDirectory") or "/"
    search = environment.get("PATH", _DEFAULT_PATH)
    program = parameters[0]
    if program == LAUNCHER_PATH and "--" in parameters:
        end = parameters.index("--")
        options, command = parameters[1:end], parameters[end + 1 :]
        if "--escaped" in options:
            options, command = list(map(unescaped, options)), list(map(unescaped, command))
        for option in options:
            if option.startswith("--setenv=PATH="):
                search = option.removeprefix("--setenv=PATH=")
        program = command[0] if command else ""
    return _Command(program, search, directory)


def _command_findings(machine: Installed, tree: Path, command: _Command) -> Iterator[Finding]:
    if command.program in {"", LAUNCHER_PATH}:
        return
    if "/" in command.program:
        candidates = [posixpath.join(command.directory, command.program)]
    else:
        folders = [posixpath.join(command.directory, folder) for folder in command.search.split(":")]
        candidates = [posixpath.join(folder, command.program) for folder in folders]
    if found := next((path for path in candidates if _runs(tree, path)), None):
        yield from _processor_findings(machine, tree, found)
        yield from _interpreter_findings(machine, tree, found)
        return
    if any(_mounted_over(machine, path) for path in candidates):
        return  # it may be in a volume; nobody but the machine can tell
    there = next((path for path in candidates if inside.status(tree, path) is not None), None)
    if there is not None:
        yield problem(
            "program",
            f"{there} in the tree is not an executable file",
            f"make it executable in the image, and {machine.again}",
        )
    else:
        where = "in the tree" if "/" in command.program else f"in the tree's {command.search}"
        yield problem("program", f"there is no {command.program} {where}: nothing starts", machine.again)


def _interpreter_findings(machine: Installed, tree: Path, path: str) -> Iterator[Finding]:
    wanted = programs.interpreter(programs.head(tree, path))
    if wanted is None or not wanted.startswith("/") or _mounted_over(machine, wanted):
        return
    if inside.status(tree, wanted) is None:
        yield problem(
            "program", f"{path} needs {wanted}, which the tree does not have: it cannot start", machine.again
        )


def _processor_findings(machine: Installed, tree: Path, path: str) -> Iterator[Finding]:
    program = programs.head(tree, path)
    host = programs.host_program(machine.root)
    if programs.is_native(program, host):
        return
    theirs, ours = programs.processor(program), programs.processor(host)
    text = f"{path} in the tree is for {theirs}, the host is {ours}"
    remedy = f"apt-get install qemu-user-static, or take the image for linux/{ours}: --platform linux/{ours}"
    if not machine.live:
        yield warning("processor", f"{text}; that needs an emulator there", remedy)
    elif not programs.emulated(program):
        yield problem("processor", f"{text} and has no emulator for it (binfmt_misc)", remedy)


def _user_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    user = machine.value("User")
    if user in {None, "root", "0"}:
        return
    if not any(_runs(tree, path) for path in ("/usr/bin/getent", "/bin/getent")):
        yield problem(
            "User=",
            f"User={user}: nspawn asks a getent in the tree for it, and there is none",
            "take the line out of the settings file; the launcher's --uid= and --gid= in Parameters= do the same",
        )


def _owner_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    """The owner of the tree's top tells by how much its user ids are shifted."""
    found = inside.status(tree, "usr") or inside.status(tree, ".")
    if found is None or not machine.trusted:
        return  # untrusted, PrivateUsers= is ignored, and nspawn shifts as it needs
    owner = found.st_uid - found.st_uid % _SHIFT
    users = machine.value("PrivateUsers")
    base = (users or "").partition(":")[0]
    off = is_no(users) or base in {"0", "identity"}
    ownership = machine.value("PrivateUsersOwnership")
    if owner and off:
        yield problem(
            "owners",
            f"the tree's files belong to users shifted by {owner}, but PrivateUsers={users}: they are nobody's there",
            f"shift them back: systemd-nspawn -D /{machine.tree_path} --private-users=0 "
            "--private-users-ownership=chown /bin/true; or set PrivateUsers=pick",
        )
    elif not owner and base.isdecimal() and int(base) >= _SHIFT and ownership in {None, "off"}:
        yield problem(
            "owners",
            f"PrivateUsers={users}, but the tree's files are not shifted: they are nobody's in the machine",
            "set PrivateUsersOwnership=map, or PrivateUsers=no",
        )


def _mounted_over(machine: Installed, path: str) -> bool:
    clean = posixpath.normpath(path)
    places = [mount.destination for mount in machine.mounts]
    if machine.drop_in is None or "SYSTEMD_NSPAWN_TMPFS_TMP=0" not in machine.unit_values("Environment"):
        places.append("/tmp")
    return any(
        clean == place or clean.startswith(place.rstrip("/") + "/") for place in (*_NOT_THE_TREES, *places)
    )


def _runs(tree: Path, path: str) -> bool:
    found = inside.status(tree, path)
    return found is not None and _executable(found)


def _executable(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)
