"""What a file or folder is, told by its content: an image, a Dockerfile, or what else it is."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from converter.errors import ConversionError
from converter.image.tarball import is_tar, members
from converter.rootfs.compression import decompress, is_compressed

FileTransport = Literal["docker-archive", "oci", "oci-archive", "dockerfile"]

_OTHERS = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x7fELF": "a program",
    b"#!": "a script",
    b"hsqs": "a squashfs file system",
    b"QFI\xfb": "a qcow2 disk image",
    b"!<arch>": "a Debian package or a library",
    b"\xed\xab\xee\xdb": "an RPM package",
}
# Only ARG, comments and parser directives may stand before the first FROM.
_DOCKERFILE = re.compile(rb"(?:[ \t]*(?:#[^\n]*|ARG[ \t][^\n]*)?\r?\n)*[ \t]*FROM[ \t]+\S", re.IGNORECASE)
_DOCKERFILE_NAME = re.compile(
    r"(?:Docker|Container)file(?:\..+)?|.+\.(?:docker|container)file", re.IGNORECASE
)
_START = 4096  # bytes that tell what a file is
_TREE = {"bin", "dev", "etc", "home", "lib", "opt", "proc", "root", "run", "sbin", "sys", "usr", "var"}
MOST_MEMBERS = 100_000  # an image archive has some hundred; a tarball of a whole system may have millions


def exists(path: Path) -> bool:
    """Whether there is something at `path`. Raises ConversionError when the user may not know."""
    try:
        path.stat()
    except PermissionError as error:
        raise ConversionError(f"cannot read '{path}': permission denied") from error
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    return True


def transport_of(path: Path) -> FileTransport:
    """Which transport reads the file or folder `path`.

    Raises ConversionError, saying what it is, when it holds no image, is damaged or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _of_folder(path)
        if not stat.S_ISREG(mode):
            raise ConversionError(f"'{path}' is neither a file nor a folder; save the image to a file first")
        with path.open("rb") as file:
            if _DOCKERFILE.match(file.read(_START)) or _DOCKERFILE_NAME.fullmatch(path.name):
                return "dockerfile"
            file.seek(0)
            return _of_file(file, path)
    except OSError as error:
        raise ConversionError(f"cannot read '{path}': {os.strerror(error.errno or errno.EIO)}") from error


def is_compressed_tar(start: bytes, path: Path) -> bool:
    """Whether the file `path`, which begins with `start`, is compressed; if not, it is a tar.

    Raises ConversionError, saying what it is, when it is neither.
    """
    if not start:
        raise ConversionError(f"'{path}' is empty")
    if is_compressed(start):
        return True
    if not is_tar(start):
        raise ConversionError(f"'{path}' is {_other(start)}, not an image")
    return False


def transport_of_tar(names: Iterable[str], path: Path) -> FileTransport:
    """Which transport reads a tar whose members have these names. Raises ConversionError when none does."""
    tops = set()
    for name in islice(names, MOST_MEMBERS):
        if name == "manifest.json":
            return "docker-archive"
        tops.add(name.partition("/")[0])
    if "oci-layout" in tops:
        return "oci-archive"
    if "repositories" in tops:
        raise ConversionError(
            f"'{path}' was saved by Docker before 1.10; docker load it and docker save it again"
        )
    if _TREE & tops:
        raise ConversionError(
            f"'{path}' is a file system tarball without an image's config; machinectl import-tar takes it"
        )
    raise ConversionError(f"'{path}' is a tar without manifest.json or oci-layout, not an image")


def _of_folder(path: Path) -> FileTransport:
    names = {entry.name for entry in os.scandir(path)}
    if "oci-layout" in names:
        return "oci"
    if "manifest.json" in names:
        return "docker-archive"
    if {"Dockerfile", "Containerfile"} & names:
        return "dockerfile"
    if len(_TREE & names) >= 3:
        raise ConversionError(
            f"'{path}' is a file system tree without an image's config; it needs no conversion"
        )
    raise ConversionError(f"'{path}' is a folder without oci-layout: it is not an OCI layout")


def _of_file(file: BinaryIO, path: Path) -> FileTransport:
    compressed = is_compressed_tar(file.read(_START), path)
    file.seek(0)
    found = members(decompress(file) if compressed else file, f"'{path}'", seekable=not compressed)
    return transport_of_tar((member.name for member in found), path)


def _other(start: bytes) -> str:
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            return what
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # which may end within a character
    except UnicodeDecodeError:
        return "a file of unknown kind"
    return "a text file" if b"\0" not in start else "a file of unknown kind"
