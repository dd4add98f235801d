"""Makes the base images that a fleet shares. As a program: `python -m benchmarks.bases NAME…` makes what is missing."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cache, image, packages

NAME = "fleet-bases"

# A layer over Debian: Python as its packages bring it, without what their scripts would do.
_PYTHON = (
    "python3 python3-minimal python3.11 python3.11-minimal libpython3-stdlib libpython3.11-stdlib "
    "libpython3.11-minimal libexpat1 libsqlite3-0 libreadline8 libssl3 media-types ca-certificates "
    "python3-pip python3-setuptools python3-wheel python3-pkg-resources python3-distutils python3-lib2to3"
)
_MERGED = ("bin", "lib", "lib64", "sbin")  # links to usr/…, which a layer must not replace with directories


@dataclass(frozen=True)
class Base:
    """A base: its name and its layers, the lowest first."""

    name: str
    layers: tuple[image.Layer, ...]


def debian() -> tuple[Base, ...]:
    """Debian 12; that and Python, which is another layer; Debian 13 with nginx and curl."""
    place = cache.get(NAME, maker="bases").directory
    bookworm, python, trixie = (
        image.layer(place / f"{name}.tar") for name in ("bookworm", "python", "trixie")
    )
    return (
        Base("debian 12", (bookworm,)),
        Base("debian 12, python", (bookworm, python)),
        Base("debian 13, nginx, curl", (trixie,)),
    )


def tiny(scratch: Path) -> tuple[Base, ...]:
    """One base of a few files, as of a program that is linked statically."""
    path = scratch / "tiny.tar"
    files = {
        "bin/sh": b"#!" + bytes(60_000),
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        "etc/os-release": b"ID=tiny\nNAME=Tiny\n",
        "etc/passwd": b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        "usr/share/zoneinfo/UTC": b"TZif2" + bytes(100),
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in (
            "bin",
            "dev",
            "etc",
            "proc",
            "run",
            "sys",
            "tmp",
            "usr",
            "usr/share",
            "usr/share/zoneinfo",
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o755, 1_700_000_000
            archive.addfile(entry, io.BytesIO(content))
    return (Base("tiny", (image.layer(path),)),)


def _make(_: str, directory: Path) -> None:
    _bootstrap("bookworm", directory / "bookworm.tar")
    _bootstrap("trixie", directory / "trixie.tar", "--include=nginx,curl")
    content = directory.parent / "content"
    content.mkdir()
    for package in packages.download(_PYTHON.split(), directory.parent / "packages").values():
        packages.unpack(package, content)
    for name in _MERGED:
        if (content / name).is_dir():
            subprocess.run(["cp", "-a", f"{content / name}/.", content / "usr" / name], check=True)
            shutil.rmtree(content / name)
    image.pack(content, directory / "python.tar")


def _bootstrap(suite: str, path: Path, *options: str) -> None:
    subprocess.run(["mmdebstrap", "--variant=minbase", "--quiet", *options, suite, path], check=True)


if __name__ == "__main__":
    cache.make_missing(sys.argv[1:], _make)
