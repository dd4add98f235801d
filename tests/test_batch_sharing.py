"""What the images of a batch share is fetched once, and a clone that fails leaves nothing open."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.rootfs.layered import put_together
from tests.batch_runs import Batches, check, made_alone
from tests.layers import directory, file, tar
from tests.registry_server import Served, serve
from tests.trees import ROOT

pytestmark = pytest.mark.skipif(not ROOT, reason="only root shares trees")

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def _layer(mark: str) -> bytes:
    return tar(directory(f"srv/{mark}"), file(f"srv/{mark}/file", os.urandom(5000)))


def _add(served: Served, name: str, *layers: bytes) -> None:
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **served.add(json.dumps(config).encode()),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                **served.add(gzip.compress(layer, mtime=0)),
            }
            for layer in layers
        ],
    }
    served.add_manifest(manifest, _MANIFEST, name)


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as running:
        yield running


def test_every_layer_is_fetched_once(served: Served, tmp_path: Path) -> None:
    base, nested, loose = _layer("base"), _layer("nested"), _layer("loose")
    images = {
        "one": (base, _layer("one")),
        "two": (base, nested, _layer("two")),
        "three": (base, nested, _layer("three")),
        "four": (_layer("four"), loose),  # shares only what lies above
        "five": (_layer("five"), loose),
        "six": (_layer("six"), _layer("seven")),  # shares nothing
        "same": (base, nested, loose),
        "again": (base, nested, loose),
    }
    for name, layers in images.items():
        _add(served, name, *layers)
    sources = {name: f"docker://{served.address}/test/image:{name}" for name in images}
    batches = Batches(tmp_path / "list.txt", tmp_path / "root")
    batches.list.write_text("".join(f"{source} {name}\n" for name, source in sources.items()))
    assert batches.run().status == 0
    layers_of_all = {
        f"sha256:{hashlib.sha256(gzip.compress(layer, mtime=0)).hexdigest()}"
        for layers in images.values()
        for layer in layers
    }
    fetched = Counter(path.rpartition("/")[2] for path, _, _ in served.requests if "/blobs/" in path)
    assert {digest: fetched[digest] for digest in layers_of_all} == dict.fromkeys(layers_of_all, 1)
    check(batches, made_alone(sources, tmp_path / "alone"))


def test_a_clone_for_which_there_is_no_room_leaves_nothing_open(tmp_path: Path) -> None:
    source, disk = tmp_path / "source", tmp_path / "disk"
    for path in (source, disk):
        path.mkdir()
    for number in range(60):
        (source / str(number)).write_bytes(os.urandom(1 << 20))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)
    try:
        root_fd = os.open(disk, os.O_RDONLY)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(OSError, match="No space left"):
            put_together([source], root_fd)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        os.close(root_fd)
    finally:
        subprocess.run(["umount", disk], check=True)
