"""The launcher: a static program that starts the machine's command where nspawn's own settings cannot.

What it does and how it is built: launch.c and build, in this directory. The binaries are part of the package.
"""

from __future__ import annotations

from importlib.resources import files

LAUNCHER_PATH = "/usr/lib/docker2nspawn/launch"


def launcher_for(architecture: str) -> bytes | None:
    """The launcher's ELF image for a processor by its Go name ("amd64"); None when there is none."""
    if architecture not in {"386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x"}:
        return None
    return files(__package__).joinpath(f"launch-{architecture}").read_bytes()


def launcher_arguments(
    *,
    uid: int,
    gid: int,
    groups: tuple[int, ...],
    setenv: tuple[str, ...],
    unsetenv: tuple[str, ...],
    argv: tuple[str, ...],
) -> tuple[str, ...]:
    """The whole command line of the launcher, all of it words that a settings file can hold."""
    options = [f"--uid={uid}", f"--gid={gid}", f"--groups={','.join(map(str, groups))}"]
    options += [f"--unsetenv={name}" for name in unsetenv]
    if any(_special(c) for word in (*setenv, *argv) for c in word):
        options.append("--escaped")
        setenv = tuple(map(_escaped, setenv))
        argv = tuple(map(_escaped, argv))
    return (LAUNCHER_PATH, *options, *(f"--setenv={assignment}" for assignment in setenv), "--", *argv)


def _special(c: str) -> bool:
    """Can a settings file not hold it, or not in every value?"""
    return c < " " or c == "\x7f" or 0xDC80 <= ord(c) <= 0xDCFF


def _escaped(word: str) -> str:
    """`word` as launch.c's --escaped reads it."""
    named = {"\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    # Bytes that are no UTF-8 are surrogates in Python's own text (PEP 383).
    return "".join(
        named.get(c)
        or ("".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape")) if _special(c) else c)
        for c in word
    )
