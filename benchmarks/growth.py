"""Makes the inputs of --linear: one content in ever more layers, and ever more entries in one layer.

As a program: `python -m benchmarks.growth NAME…` makes what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks import cache, image, packages

LAYERS = ("layers-1", "layers-8", "layers-32", "layers-127")  # Docker allows no more than 127
ENTRIES = ("entries-10000", "entries-100000", "entries-1000000")

# About 200 MB in about 10,000 entries.
_CONTENT = "python3.11-doc vim-runtime perl-modules-5.36 python3-sympy libruby3.1 node-babel7"
_PER_DIRECTORY = 1000


def _make(name: str, directory: Path) -> None:
    kind, _, count = name.partition("-")
    one = cache.Input(name, directory)
    if kind == "layers":
        _make_layers(one, int(count), directory.parent)
    else:
        _make_entries(one, int(count))


def _make_layers(one: cache.Input, count: int, scratch: Path) -> None:
    """The same tree, cut at equal numbers of entries."""
    tree = scratch / "tree"
    tree.mkdir()
    for package in packages.download(_CONTENT.split(), scratch / "packages").values():
        packages.unpack(package, tree)
    # Parents come before what is in them.
    paths = sorted(
        os.fsencode((Path(where) / name).relative_to(tree))
        for where, directories, files in os.walk(tree)
        for name in (*directories, *files)
    )
    layers = []
    for number in range(count):
        part = paths[len(paths) * number // count : len(paths) * (number + 1) // count]
        path = scratch / f"{number}.tar"
        command = ["tar", "-c", "--no-recursion", "--numeric-owner", "--format=posix", "--null"]
        command += ["--pax-option=delete=atime,delete=ctime", "-f", str(path), "-C", str(tree)]
        subprocess.run([*command, "--files-from=-"], input=b"\0".join(part), check=True)
        layers.append(image.layer(path))
    cache.write_forms(one, layers, tree)


def _make_entries(one: cache.Input, count: int) -> None:
    """A layer that exists only as a tarball: a million files are soon written, but not soon made."""
    content = b"x" * 100 + bytes(tarfile.BLOCKSIZE - 100)
    with one.flat.open("wb") as file:
        for number in range(count):
            where = f"d{number // _PER_DIRECTORY:04}"
            entry = tarfile.TarInfo(where)
            entry.mtime = 1_700_000_000
            entry.mode = 0o755
            if number % _PER_DIRECTORY == 0:
                entry.type = tarfile.DIRTYPE
            else:
                entry.name = f"{where}/file-{number:07}"
                entry.size = 100 if number % 4 == 0 else 0
            file.write(entry.tobuf(tarfile.USTAR_FORMAT))
            if entry.size:
                file.write(content)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    image.write_docker_archive([image.layer(one.flat)], one.docker_archive, one.reference)
    one.write_facts(layers=1, entries=count, gzip_bytes=0)


if __name__ == "__main__":
    cache.make_missing(sys.argv[1:], _make)
