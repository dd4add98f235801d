"""The launcher: a static program that starts the machine's command where nspawn's own settings cannot.

What it does and how it is built: launch.c and build, in this directory. The binaries are part of the package, the
same as a fresh build with Debian 12's compiler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

from converter.errors import ConversionError
from converter.machine.settings import INEXPRESSIBLE, expressible

LAUNCHER_PATH = "/usr/lib/docker2nspawn/launch"
"""Where it lies in a machine's tree."""

ARCHITECTURES = ("386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x")
"""The processors there is one for, by their Go names; "arm" is v5 and everything newer."""

# The names that --clean takes out; CLEANED in launch.c.
_CLEANED = re.compile(
    r"container|container_uuid|container_host_.*|NOTIFY_SOCKET|LISTEN_.*|CREDENTIALS_DIRECTORY"
    r"|USER|LOGNAME|LANG|TERM|COLORTERM|NO_COLOR",
    re.DOTALL,
)

# Their numbers are their places (include/uapi/linux/capability.h).
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)

_NAMED = {"\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def launcher_for(architecture: str) -> bytes | None:
    """The launcher's ELF image for a processor by its Go name ("amd64"); None when there is none."""
    if architecture not in ARCHITECTURES:  # the name comes from an image, and becomes one of a file
        return None
    return files(__name__).joinpath(f"launch-{architecture}").read_bytes()


def capability_mask(names: Iterable[str]) -> int:
    """The bits of capabilities ("CAP_CHOWN"), as the kernel counts them. Raises KeyError for an unknown name."""
    numbers = {f"CAP_{name}": number for number, name in enumerate(_CAPABILITIES.split())}
    return sum(1 << numbers[name] for name in set(names))


def launcher_arguments(
    *,
    uid: int,
    gid: int,
    groups: Sequence[int],
    argv: Sequence[str],
    setenv: Sequence[str] = (),
    unsetenv: Sequence[str] = (),
    clean: bool = False,
    keep: Sequence[str] = (),
    bounding: int | None = None,
    chdir: str | None = None,
    no_new_privs: bool = False,
    root: str | None = None,
) -> tuple[str, ...]:
    """The whole command line of the launcher, all of it words that a settings file can hold.

    `setenv` are NAME=VALUE assignments, `unsetenv` names. `clean` takes out what nspawn adds to the environment, but
    not the names in `keep`: those that the settings file sets. `bounding` is the mask of the capabilities that stay
    (see capability_mask); `chdir` the working directory; `root` a mount point, a plain path, that becomes the root
    first. Bytes that are no UTF-8 are Python's surrogate escapes (PEP 383). Raises ConversionError for what no program
    can be given: a NUL, a variable without a name, or more than the kernel's 128 KiB in one word.
    """
    for assignment in setenv:
        if assignment.find("=") < 1:
            raise ConversionError(
                f"ENV {assignment[:80]!r} has no name, so `docker run` refuses it too; change the image"
            )
    # Nothing but the names that --clean would take out.
    keep = sorted({name for name in keep if _CLEANED.fullmatch(name)}) if clean else ()
    directory = [chdir] if chdir is not None else []
    options = [f"--groups={','.join(map(str, groups))}", f"--gid={gid}", f"--uid={uid}"]
    if any(INEXPRESSIBLE.search(word) for word in (*setenv, *unsetenv, *keep, *directory, *argv)):
        options.insert(0, "--escaped")
        setenv, unsetenv, keep, directory, argv = (
            [_escaped(word) for word in part] for part in (setenv, unsetenv, keep, directory, argv)
        )
    if root is not None:
        options.append(f"--root={root}")
    if bounding is not None:
        options.append(f"--bounding={bounding:x}")
    if no_new_privs:
        options.append("--no-new-privs")
    options += [f"--chdir={path}" for path in directory]
    if clean:
        options += [*(f"--keep={name}" for name in keep), "--clean"]
    options += [f"--unsetenv={name}" for name in unsetenv]
    options += [f"--setenv={assignment}" for assignment in setenv]
    arguments = (LAUNCHER_PATH, *options, "--", *argv)
    for word in arguments:
        if not expressible(word):
            raise ConversionError(
                f"the image's command or ENV has {word[:40]!r}…, {len(word)} characters for the launcher; "
                "Linux takes less than 128 KiB in one word: shorten it in the image"
            )
    return arguments


def _escaped(word: str) -> str:
    """`word` as launch.c reads it after --escaped."""
    return "".join(map(_escaped_character, word))


def _escaped_character(c: str) -> str:
    if c in _NAMED:
        return _NAMED[c]
    if c >= " " and c != "\x7f" and not INEXPRESSIBLE.match(c):
        return c
    if c == "\0":
        raise ConversionError(
            "the image's command or ENV holds a NUL, so `docker run` refuses it too; change the image"
        )
    try:
        return "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise ConversionError(
            f"the image's command or ENV holds {c!r}, which is no character; change the image"
        ) from None
