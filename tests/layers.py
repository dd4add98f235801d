"""Small layers for tests, made with Python's own tarfile."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

from converter.image.model import Image, Layer


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; `more` sets fields of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def file(name: str, content: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, content=content, **more)


def directory(name: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, **more)


def symlink(name: str, target: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, linkname=target, **more)


def hardlink(name: str, target: str, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, linkname=target, **more)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_of(image: Image) -> list[Layer]:
    """The layers, each of which is a range of a file."""
    found = [layer for layer in image.layers if isinstance(layer, Layer)]
    assert len(found) == len(image.layers)
    return found


def layer(directory: Path, data: bytes, *, diff_id: str | None = None) -> Layer:
    """Put `data` into a file and describe it, with its true digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = directory / digest.replace(":", "-")
    path.write_bytes(data)
    return Layer(path, 0, len(data), digest=digest, diff_id=diff_id)
