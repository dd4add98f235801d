"""Archives and layouts that lie about themselves: recursion, digests, order, layers used twice, linked members."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import BASE, OUT, Allowed, Refused, Scene, as_json, config_of, sha256, staged
from tests.layers import file, hardlink, member, symlink, tar

ONE = tar(file("a", b"1"), file("same", b"1"))
TWO = tar(file("b", b"2"), file("same", b"2"), file(".wh.a"))
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


# --- docker save's form --------------------------------------------------------------------------------------


def docker(scene: Scene, layers: list[str], diffs: list[bytes], **files: bytes) -> Path:
    """An archive whose members 0, 1 and 2 are BASE, ONE and TWO."""
    held = {"0": BASE, "1": ONE, "2": TWO, **files}
    return scene.save_files(layers, config_of(sha256(diff) for diff in diffs), held)


Docker = tuple[list[str], list[bytes], Allowed]
MISSING = Refused("is missing")
CORRUPT = Refused("corrupt")
LAYERS: dict[str, Docker] = {
    "in order": (["0", "1", "2"], [BASE, ONE, TWO], {"b": "2", "same": "2"}),
    "in another order": (["0", "2", "1"], [BASE, TWO, ONE], {"a": "1", "b": "2", "same": "1"}),
    "used twice": (["0", "1", "1"], [BASE, ONE, ONE], {"a": "1", "same": "1"}),
    "used again above another": (["0", "1", "2", "1"], [BASE, ONE, TWO, ONE], {"a": "1", "b": "2", "same": "1"}),
    "used two hundred times": (["0", *["1", "2"] * 100], [BASE, *[ONE, TWO] * 100], {"b": "2", "same": "2"}),
    "order lies": (["0", "2", "1"], [BASE, ONE, TWO], CORRUPT),
    "a wrong diff id": (["0", "1"], [BASE, TWO], CORRUPT),
    "a diff id more": (["0", "1"], [BASE, ONE, TWO], Refused("diff ids of 3")),
    "a diff id less": (["0", "1", "2"], [BASE, ONE], Refused("diff ids of 2")),
    "no diff ids": (["0"], [], Refused("diff ids of 0")),
    "no layers": ([], [BASE], Refused("no layers")),
    "a layer that is not there": (["0", "9"], [BASE, ONE], MISSING),
    "the manifest as layer": (["0", "manifest.json"], [BASE, ONE], CORRUPT),
    "the config as layer": (["0", "config.json"], [BASE, ONE], CORRUPT),
    "a name to outside": (["0", f"{OUT}/passwd"], [BASE, ONE], MISSING),
    "a name of the host": (["0", "/etc/passwd"], [BASE, ONE], MISSING),
    "an empty name": (["0", ""], [BASE, ONE], Refused()),
    "a name of dots": (["0", ".."], [BASE, ONE], Refused()),
    "a name with a newline": (["0", "x\ny\x1b[2J"], [BASE, ONE], MISSING),
    "a name with a NUL": (["0", "1\0"], [BASE, ONE], MISSING),
    "a name of a megabyte": (["0", "n" * (1 << 20)], [BASE, ONE], MISSING),
    "a name written another way": (["./0", "x/../1"], [BASE, ONE], {"a": "1", "same": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("what", LAYERS)
def test_layers(scene: Scene, what: str) -> None:
    names, diffs, allowed = LAYERS[what]
    outcome = scene.convert(docker(scene, names, diffs))
    scene.check_outcome(outcome, allowed)
    assert len(outcome.stderr) < 10_000


MEMBERS: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], Allowed]] = {
    "a link to the host": ([symlink("1", "/etc/passwd")], MISSING),
    "a link to outside": ([symlink("1", f"{OUT}/passwd")], MISSING),
    "a link to itself": ([symlink("1", "1")], Refused("circle")),
    "links in a circle": ([symlink("1", "x"), symlink("x", "1")], Refused("circle")),
    "a hard link to the host": ([hardlink("1", "/etc/passwd")], MISSING),
    "a hard link to itself": ([hardlink("1", "1")], Refused("circle")),
    "a directory": ([member("1", tarfile.DIRTYPE)], Refused("not a file")),
    "a fifo": ([member("1", tarfile.FIFOTYPE)], Refused("not a file")),
    "a disk": ([member("1", tarfile.BLKTYPE, devmajor=8)], Refused("not a file")),
    "a link within": ([symlink("x/1", "../y"), symlink("1", "x/1"), file("y", ONE)], {"a": "1", "same": "1"}),
    "a name twice": ([file("1", TWO), file("1", ONE)], {"a": "1", "same": "1"}),
    "a name twice, the wrong one last": ([file("1", ONE), file("1", TWO)], CORRUPT),
    "a name from outside": ([file("../../1", ONE)], {"a": "1", "same": "1"}),
}


@pytest.mark.parametrize("what", MEMBERS)
def test_members(scene: Scene, what: str) -> None:
    """What the archive holds in the place of a layer."""
    members, allowed = MEMBERS[what]
    path = scene.inputs / "image.tar"
    manifest = as_json([{"Config": "c", "RepoTags": None, "Layers": ["0", "1"]}])
    config = config_of([sha256(BASE), sha256(ONE)])
    path.write_bytes(tar(file("0", BASE), *members, file("c", config), file("manifest.json", manifest)))
    scene.check_outcome(scene.convert(path), allowed)


DOCUMENTS: dict[str, object] = {
    "itself as config": [{"Config": "manifest.json", "RepoTags": None, "Layers": ["0"]}],
    "a layer as config": [{"Config": "0", "RepoTags": None, "Layers": ["0"]}],
    "a config of the host": [{"Config": "/etc/passwd", "RepoTags": None, "Layers": ["0"]}],
    "no list": {"Config": "config.json", "Layers": ["0"]},
    "an empty list": [],
    "a list of lists": [[]],
    "layers that are no names": [{"Config": "config.json", "RepoTags": None, "Layers": [{"a": 1}]}],
    "layers that are a name": [{"Config": "config.json", "RepoTags": None, "Layers": "0"}],
    "two images": [
        {"Config": name, "RepoTags": None, "Layers": ["0"]} for name in ("config.json", "other.json")
    ],
    "ten thousand images": [
        {"Config": "config.json", "RepoTags": [f"x:{n}"], "Layers": ["0"]} for n in range(10_000)
    ],
    "a hundred deep": [],
    "not JSON": [],
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_documents(scene: Scene, what: str) -> None:
    document = as_json(DOCUMENTS[what])
    document = {"a hundred deep": b"[" * 100_000, "not JSON": b"\xff{"}.get(what, document)
    config, other = config_of([sha256(BASE)]), config_of([sha256(BASE)], Cmd=["/x"])
    data = tar(
        file("0", BASE),
        file("config.json", config),
        file("other.json", other),
        file("manifest.json", document),
    )
    path = scene.inputs / "image.tar"
    path.write_bytes(data)
    outcome = scene.convert(path)
    outcome.refused()
    assert len(outcome.stderr) < 10_000
    scene.assert_untouched(refused=True)


# --- OCI's form ----------------------------------------------------------------------------------------------


class Blobs:
    """The blobs of a layout, by digest."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def add(self, data: bytes | object, kind: str = "", **more: Any) -> dict[str, Any]:
        """Keep a blob and describe it."""
        stored = data if isinstance(data, bytes) else as_json(data)
        self.held[sha256(stored)] = stored
        return {"mediaType": kind, "digest": sha256(stored), "size": len(stored), **more}

    def manifest(self, *layers: bytes, diffs: list[bytes] | None = None, **more: Any) -> dict[str, Any]:
        config = self.add(config_of(sha256(diff) for diff in diffs or layers), CONFIG)
        described = [self.add(layer, LAYER) for layer in layers]
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described, **more}
        return self.add(document, MANIFEST)

    def index(self, *entries: Mapping[str, Any]) -> dict[str, Any]:
        return self.add({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)


def nested(blobs: Blobs, depth: int) -> dict[str, Any]:
    here = blobs.manifest(BASE, ONE)
    for _ in range(depth):
        here = blobs.index(here)
    return here


def points_to_itself(blobs: Blobs) -> dict[str, Any]:
    """No digest can be right for that; this one says so of the index that holds it."""
    here = blobs.index(blobs.manifest(BASE))
    inner = blobs.index(here)
    blobs.held[here["digest"]] = blobs.held[inner["digest"]]
    return {**here, "size": inner["size"]}


def with_lie(**lie: Any) -> Callable[[Blobs], dict[str, Any]]:
    def make(blobs: Blobs) -> dict[str, Any]:
        return {**blobs.manifest(BASE, ONE), **lie}

    return make


def layer_lie(**lie: Any) -> Callable[[Blobs], dict[str, Any]]:
    def make(blobs: Blobs) -> dict[str, Any]:
        layers = [blobs.add(BASE, LAYER), {**blobs.add(ONE, LAYER), **lie}]
        return blobs.manifest(BASE, ONE, layers=layers)

    return make


def changed_blob(blobs: Blobs) -> dict[str, Any]:
    made = blobs.manifest(BASE, ONE)
    blobs.held[sha256(ONE)] = ONE.replace(b"1" + bytes(511), b"2" + bytes(511))
    return made


def itself_in_all(blobs: Blobs) -> dict[str, Any]:
    """One blob as config and as layer."""
    both = blobs.add(BASE, CONFIG)
    return blobs.add({"schemaVersion": 2, "config": both, "layers": [{**both, "mediaType": LAYER}]}, MANIFEST)


def index_as_layer(blobs: Blobs) -> dict[str, Any]:
    inner = blobs.held[blobs.index(blobs.manifest(BASE))["digest"]]
    return blobs.manifest(BASE, inner)


def index_as_config(blobs: Blobs) -> dict[str, Any]:
    inner = blobs.index(blobs.manifest(BASE))
    document = {
        "schemaVersion": 2,
        "config": {**inner, "mediaType": CONFIG},
        "layers": [blobs.add(BASE, LAYER)],
    }
    return blobs.add(document, MANIFEST)


def both_kinds(blobs: Blobs) -> dict[str, Any]:
    inner = blobs.manifest(BASE)
    return blobs.manifest(BASE, ONE, manifests=[inner])


TREE_ONE = {"a": "1", "same": "1"}
NESTED = Refused("nested more than")
OCI: dict[str, tuple[Callable[[Blobs], dict[str, Any]], Allowed]] = {
    "index in index": (lambda blobs: nested(blobs, 1), TREE_ONE),
    "indexes seven deep": (lambda blobs: nested(blobs, 7), TREE_ONE),
    "indexes eight deep": (lambda blobs: nested(blobs, 8), NESTED),
    "indexes five hundred deep": (lambda blobs: nested(blobs, 500), NESTED),
    "an index that points to itself": (points_to_itself, CORRUPT),
    "an index without manifests": (lambda blobs: blobs.index(), Refused()),
    "an index as layer": (index_as_layer, Refused("not a tar")),
    "an index as config": (index_as_config, Refused()),
    "index and manifest in one": (both_kinds, Refused("both an index and an image")),
    "an index called a manifest": (lambda blobs: {**nested(blobs, 1), "mediaType": MANIFEST}, [Refused(), TREE_ONE]),
    "a manifest called an index": (
        lambda blobs: {**blobs.manifest(BASE, ONE), "mediaType": INDEX}, [Refused(), TREE_ONE]),
    "config and layer in one": (itself_in_all, Refused()),
    "a layer twice": (lambda blobs: blobs.manifest(BASE, ONE, ONE), TREE_ONE),
    "order lies": (lambda blobs: blobs.manifest(BASE, TWO, ONE, diffs=[BASE, ONE, TWO]), CORRUPT),
    "a changed blob": (changed_blob, CORRUPT),
    "a wrong digest": (with_lie(digest="sha256:" + "0" * 64), MISSING),
    "a wrong size": (with_lie(size=7), Refused("instead of 7")),
    "a negative size": (with_lie(size=-1), Refused("a size in")),
    "a huge size": (with_lie(size=1 << 80), Refused("a size in")),
    "a size of words": (with_lie(size="many"), Refused("a size in")),
    "a digest to outside": (with_lie(digest=f"sha256:../../../{OUT}/passwd"), Refused("not a sha256")),
    "a digest of an empty name": (with_lie(digest=""), Refused("not a sha256")),
    "a weak digest": (with_lie(digest="md5:" + "0" * 32), Refused("not a sha256")),
    "a digest in capitals": (with_lie(digest="sha256:" + "A" * 64), Refused("not a sha256")),
    "a digest with a newline": (with_lie(digest="sha256:" + "0" * 64 + "\n"), Refused("not a sha256")),
    "a layer's wrong digest": (layer_lie(digest=sha256(TWO)), MISSING),
    "a layer's wrong size": (layer_lie(size=len(ONE) - 512), Refused("instead of")),
    "a layer from elsewhere": (layer_lie(digest=sha256(TWO), urls=["http://127.0.0.1:9/x"]), MISSING),
    "a layer's digest to outside": (layer_lie(digest="sha256:/etc/passwd"), Refused("not a sha256")),
    "a layer that is called gzip": (layer_lie(mediaType=LAYER + "+gzip"), TREE_ONE),
    "a layer that is called JSON": (layer_lie(mediaType="application/json"), Refused("not an image")),
}  # fmt: skip


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
@pytest.mark.parametrize("what", OCI)
def test_layouts(scene: Scene, what: str, form: str) -> None:
    make, allowed = OCI[what]
    blobs = Blobs()
    entry = make(blobs)
    files = {f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.held.items()}
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    files["index.json"] = as_json({"schemaVersion": 2, "manifests": [entry]})
    path = scene.inputs / "layout"
    if form == "oci":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes(tar(*(file(name, data) for name, data in files.items())))
    scene.check_outcome(scene.convert(f"{form}:{path}"), allowed)


@pytest.mark.parametrize("place", ["index.json", "oci-layout", "layer"])
def test_a_layout_with_a_link_to_outside(scene: Scene, place: str) -> None:
    """What another could have put there must not make us read the user's own files."""
    blobs = Blobs()
    entry = blobs.manifest(BASE, ONE)
    path = scene.inputs / "layout"
    (path / "blobs/sha256").mkdir(parents=True)
    for digest, data in blobs.held.items():
        (path / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    (path / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_bytes(as_json({"schemaVersion": 2, "manifests": [entry]}))
    target = path / place if place != "layer" else path / "blobs/sha256" / sha256(ONE).removeprefix("sha256:")
    stolen = scene.inputs / "stolen"
    target.rename(stolen)
    target.symlink_to(stolen)
    outcome = scene.convert(f"oci:{path}")
    outcome.refused("leads out of its folder")
    scene.assert_untouched(refused=True)
