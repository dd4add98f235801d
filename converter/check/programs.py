"""Programs: for which processor they are, what they need to start, and whether a host can run them (elf(5))."""

from __future__ import annotations

import struct
from pathlib import Path

from converter import inside

_PROCESSORS = {
    3: "386",
    8: "mips",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
_ALSO_NATIVE = {(62, 3), (183, 40)}  # (the host's, the program's): kernels for the former run the latter
_HEAD = 64 * 1024  # bytes in which headers and the interpreter's name are looked for
_HOST_PROGRAMS = ("usr/bin/systemd-nspawn", "usr/lib/systemd/systemd", "usr/bin/sh", "bin/sh")
_PT_INTERP = 3
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def head(root: Path, path: str) -> bytes:
    """The beginning of a program below `root`; b"" when it cannot be read."""
    return inside.read(root, path, _HEAD) or b""


def processor(program: bytes) -> str | None:
    """The processor that an ELF program is for, by its Go name; None when it is not ELF."""
    number = _machine(program)
    if number is None:
        return None
    return _PROCESSORS.get(number, f"ELF machine {number}") + (
        "le" if number == 21 and program[5] == 1 else ""
    )


def host_program(root: Path) -> bytes:
    """The beginning of a program of the host's own; b"" when none was found."""
    return next((found for path in _HOST_PROGRAMS if _machine(found := head(root, path)) is not None), b"")


def is_native(program: bytes, host: bytes) -> bool:
    """Can the host that has the program `host` run `program` itself? What is not ELF, or not known, counts as yes."""
    numbers = (_machine(host), _machine(program))
    if None in numbers:
        return True
    return numbers in _ALSO_NATIVE or (numbers[0] == numbers[1] and host[5] == program[5])


def emulated(program: bytes) -> bool:
    """Has the running kernel an interpreter for a foreign program like this (binfmt_misc)?"""
    try:
        entries = [path.read_text() for path in BINFMT.iterdir() if path.name not in {"register", "status"}]
    except OSError:
        return False
    return any(_matches(entry, program) for entry in entries)


def _matches(entry: str, program: bytes) -> bool:
    fields = dict(line.partition(" ")[::2] for line in entry.splitlines())
    if "enabled" not in fields or "magic" not in fields:
        return False
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
        offset = int(fields.get("offset", "0"))
    except ValueError:
        return False
    part = program[offset : offset + len(magic)]
    return len(part) == len(magic) and all(
        (a & m) == (b & m) for a, b, m in zip(part, magic, mask, strict=False)
    )


def interpreter(program: bytes) -> str | None:
    """What the kernel starts for this program: the dynamic loader, or the word after "#!"; None when nothing."""
    if program.startswith(b"#!"):
        words = program[2:].partition(b"\n")[0].split()
        return words[0].decode("utf-8", "surrogateescape") if words else None
    if _machine(program) is None:
        return None
    order = "<" if program[5] == 1 else ">"
    wide = program[4] == 2
    try:
        (start,) = struct.unpack_from(order + ("Q" if wide else "I"), program, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", program, 54 if wide else 42)
        for index in range(min(count, 128)):
            at = start + index * size
            (kind,) = struct.unpack_from(order + "I", program, at)
            if kind == _PT_INTERP:
                (offset,) = struct.unpack_from(
                    order + ("Q" if wide else "I"), program, at + (8 if wide else 4)
                )
                (length,) = struct.unpack_from(
                    order + ("Q" if wide else "I"), program, at + (32 if wide else 16)
                )
                name = program[offset : offset + length].partition(b"\0")[0]
                return name.decode("utf-8", "surrogateescape") or None
    except struct.error:
        return None
    return None


def _machine(program: bytes) -> int | None:
    if len(program) < 52 or not program.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(program[18:20], "little" if program[5] == 1 else "big")
