"""Archives and layouts: the same image from every form, and one clear line from every damaged one."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard

from converter.errors import ConversionError
from converter.image.archive import open_archive
from converter.image.layout import open_layout
from converter.image.model import Image, Layer, Platform
from converter.image.reference import Reference, parse_reference, recognise
from converter.progress import Progress, Silent
from tests.layers import files_of

FIXTURES = Path(__file__).parent.parent / "fixtures"
SILENT = cast(Progress, Silent())
AMD64 = Platform("linux", "amd64")
OCI = "application/vnd.oci.image."


def content(layer: Layer) -> bytes:
    with layer.path.open("rb") as file:
        file.seek(layer.offset)
        return file.read(layer.size)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check(image: Image) -> None:
    """Every layer's bytes are what its digest and diff id say."""
    for layer in files_of(image):
        data = content(layer)
        assert layer.digest in (None, sha256(data))
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        elif data[:4] == b"\x28\xb5\x2f\xfd":
            data = zstandard.decompress(data)
        assert layer.diff_id == sha256(data)


Open = Callable[..., Image]


@pytest.fixture
def archive(tmp_path: Path) -> Open:
    def open_it(
        path: Path, ref: str | None = None, *, oci: bool = False, platform: Platform = AMD64
    ) -> Image:
        spool = tmp_path / "spool"
        spool.mkdir(exist_ok=True)
        return open_archive(path, ref, platform=platform, spool=spool, progress=SILENT, oci=oci)

    return open_it


Item = bytes | tuple[bytes, str] | None


def pack(path: Path, items: list[tuple[str, Item]]) -> Path:
    """A tar of files (bytes), links (type and target) and folders (None)."""
    with tarfile.open(path, "w") as tar:
        for name, item in items:
            info = tarfile.TarInfo(name)
            data = item if isinstance(item, bytes) else b""
            info.size = len(data)
            if item is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(item, tuple):
                info.type, info.linkname = item
            tar.addfile(info, io.BytesIO(data))
    return path


def tar_layer(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


A, B = tar_layer("a"), tar_layer("b")


def config(*layers: bytes, **more: Any) -> bytes:
    diff_ids = [sha256(layer) for layer in layers]
    value = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"diff_ids": diff_ids}}
    return json.dumps({**value, **more}).encode()


def saved(
    path: Path,
    *,
    manifest: object = None,
    config_data: bytes | None = None,
    files: dict[str, Item] | None = None,
) -> Path:
    """A small docker-archive of the layers A and B, with some things said otherwise."""
    config_data = config(A, B) if config_data is None else config_data
    name = sha256(config_data).removeprefix("sha256:") + ".json"
    entry = {"Config": name, "RepoTags": ["acme/web:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}
    items: dict[str, Item] = {name: config_data, "1/layer.tar": A, "2/layer.tar": B}
    items["manifest.json"] = json.dumps([entry] if manifest is None else manifest).encode()
    return pack(path, list({**items, **(files or {})}.items()))


class Layout:
    """An OCI layout in a folder, to be made right or wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def put(self, data: bytes, media_type: str = "", **more: object) -> dict[str, Any]:
        (self.path / "blobs" / "sha256" / sha256(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}

    def image(self, *layers: bytes, config_data: bytes | None = None, **more: object) -> dict[str, Any]:
        manifest = {
            "schemaVersion": 2,
            "config": self.put(
                config(*layers) if config_data is None else config_data, f"{OCI}config.v1+json"
            ),
            "layers": [self.put(layer, f"{OCI}layer.v1.tar") for layer in layers],
        }
        return self.put(json.dumps(manifest).encode(), f"{OCI}manifest.v1+json", **more)

    def index(self, *manifests: dict[str, Any]) -> Path:
        index = {"schemaVersion": 2, "manifests": manifests}
        (self.path / "index.json").write_text(json.dumps(index))
        return self.path


def ref_name(name: str) -> dict[str, str]:
    return {"org.opencontainers.image.ref.name": name}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


# --- the same image from every form ---


def test_the_fixtures_agree(archive: Open) -> None:
    hello = archive(FIXTURES / "hello.tar")
    both_hello = archive(FIXTURES / "both.tar.zst", "hello")
    tricky = [
        archive(FIXTURES / "both.tar.zst", "docker.io/library/tricky:1.0"),
        archive(FIXTURES / "tricky.oci.tar.gz", oci=True),
        archive(FIXTURES / "tricky.oci.tar.gz", "1.0", oci=True),
        open_layout(FIXTURES / "tricky.oci", "1.0", platform=AMD64),
        open_layout(FIXTURES / "tricky.oci", None, platform=AMD64),
    ]
    for image in (hello, both_hello, *tricky):
        check(image)
    assert hello.config == both_hello.config
    assert [x.diff_id for x in hello.layers] == [x.diff_id for x in both_hello.layers]
    assert len({image.digest for image in tricky[1:]}) == 1
    assert len({tuple(layer.diff_id for layer in files_of(image)) for image in tricky}) == 1
    assert all(image.config == tricky[0].config for image in tricky)
    assert tricky[0].config.entrypoint[:4] == ("/usr/bin/hello", "two words", "", "a\tb")
    assert len(tricky[0].layers) == 4
    assert [image.source.partition(":")[0] for image in tricky] == [
        "docker-archive",
        *["oci-archive"] * 2,
        "oci",
        "oci",
    ]


def test_digest_is_the_manifests_or_the_image_id(archive: Open) -> None:
    with tarfile.open(FIXTURES / "hello.tar") as tar:
        config_name = next(name for name in tar.getnames() if name.endswith(".json") and len(name) > 64)
    assert archive(FIXTURES / "hello.tar").digest == f"sha256:{config_name.removesuffix('.json')}"
    index = json.loads((FIXTURES / "tricky.oci" / "index.json").read_bytes())
    assert archive(FIXTURES / "tricky.oci.tar.gz", oci=True).digest == index["manifests"][0]["digest"]
    assert archive(FIXTURES / "both.tar.zst", "hello").digest != archive(FIXTURES / "hello.tar").digest


def test_an_uncompressed_archive_is_not_copied(archive: Open, tmp_path: Path) -> None:
    image = archive(FIXTURES / "hello.tar")
    assert {layer.path for layer in files_of(image)} == {FIXTURES / "hello.tar"}
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, bz2.compress, zstandard.compress],
    ids=["gzip", "xz", "bzip2", "zstd"],
)
def test_a_compressed_archive_is_decompressed_once(
    archive: Open, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    plain = archive(FIXTURES / "hello.tar")
    packed = tmp_path / "packed"
    packed.write_bytes(compress((FIXTURES / "hello.tar").read_bytes()))
    image = archive(packed)
    check(image)
    assert (image.digest, image.config) == (plain.digest, plain.config)
    assert {layer.path for layer in files_of(image)} == set((tmp_path / "spool").iterdir())


def test_several_platforms() -> None:
    for architecture in ("amd64", "arm64"):
        image = open_layout(FIXTURES / "multi.oci", None, platform=Platform("linux", architecture))
        check(image)
        assert image.platform == Platform("linux", architecture)
    with pytest.raises(ConversionError, match=r"linux/s390x.*linux/amd64, linux/arm64"):
        open_layout(FIXTURES / "multi.oci", "latest", platform=Platform("linux", "s390x"))


def test_an_unpacked_docker_archive(archive: Open, tmp_path: Path) -> None:
    shutil.unpack_archive(FIXTURES / "hello.tar", tmp_path / "unpacked", "tar")
    image = archive(tmp_path / "unpacked", "hello:latest")
    check(image)
    assert image.digest == archive(FIXTURES / "hello.tar").digest


@pytest.mark.lab
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_writes(archive: Open, tmp_path: Path, transport: str) -> None:
    path = tmp_path / "copied"
    source = f"oci:{FIXTURES}/multi.oci:latest"
    command = ["skopeo", "--override-arch=amd64", "copy", "--insecure-policy", "--quiet", source]
    subprocess.run([*command, f"{transport}:{path}:acme/copy:2"], check=True)
    if transport == "oci":
        image = open_layout(path, "acme/copy:2", platform=AMD64)
    else:
        image = archive(path, "acme/copy:2", oci=transport == "oci-archive")
    check(image)
    ours = open_layout(FIXTURES / "multi.oci", None, platform=AMD64)
    assert image.config == ours.config
    assert [layer.diff_id for layer in files_of(image)] == [layer.diff_id for layer in ours.layers]
    assert recognise(f"{path}:acme/copy:2") == Reference(transport, str(path), "acme/copy:2")  # type: ignore[arg-type]


# --- names ---


@pytest.mark.parametrize("ref", ["hello", "hello:latest", "docker.io/library/hello", "library/hello"])
def test_docker_names(archive: Open, ref: str) -> None:
    assert archive(FIXTURES / "both.tar.zst", ref).config.cmd == ("--message", "two words")


def test_ids_are_names_too(archive: Open) -> None:
    image_id = str(archive(FIXTURES / "hello.tar").digest)
    manifest = str(archive(FIXTURES / "both.tar.zst", "hello").digest)
    for ref in (image_id, image_id[7:], image_id[7:19], manifest):
        assert archive(FIXTURES / "both.tar.zst", ref).digest == manifest
    manifest = str(open_layout(FIXTURES / "tricky.oci", None, platform=AMD64).digest)
    assert open_layout(FIXTURES / "tricky.oci", manifest[7:19], platform=AMD64).digest == manifest


@pytest.mark.parametrize("ref", [None, "nothing", "hello:2", "ffffffffffff"])
def test_the_error_lists_what_there_is(archive: Open, ref: str | None) -> None:
    with pytest.raises(ConversionError, match=r"hello:latest.*tricky:1.0.*tricky:latest"):
        archive(FIXTURES / "both.tar.zst", ref)


def test_an_oci_archive_knows_dockers_names(archive: Open, layout: Layout) -> None:
    names = ("docker.io/acme/one:latest", "docker.io/acme/two:latest")
    images = [
        layout.image(data, annotations={"io.containerd.image.name": name, **ref_name("latest")})
        for name, data in zip(names, (A, B), strict=True)
    ]
    path = layout.index(*images)
    assert open_layout(path, "acme/two", platform=AMD64).digest == images[1]["digest"]
    for tag in (None, "latest"):
        with pytest.raises(ConversionError, match=r"several.*acme/one:latest.*acme/two:latest"):
            open_layout(path, tag, platform=AMD64)


def test_images_without_names_are_listed_by_id(archive: Open, tmp_path: Path) -> None:
    items: list[tuple[str, Item]] = [("1/layer.tar", A), ("2/layer.tar", B)]
    entries = []
    for number, data in (("1", A), ("2", B)):
        name = sha256(config(data))
        items.append((name, config(data)))  # crane writes the config's name like this
        entries.append({"Config": name, "RepoTags": None, "Layers": [f"{number}/layer.tar"]})
    path = pack(tmp_path / "x.tar", [*items, ("manifest.json", json.dumps(entries).encode())])
    ids = [sha256(config(data))[7:19] for data in (A, B)]
    with pytest.raises(ConversionError, match=f"{ids[0]}, {ids[1]}"):
        archive(path)
    assert content(files_of(archive(path, ids[1]))[0]) == B


def test_one_name_for_several_platforms(archive: Open, tmp_path: Path, layout: Layout) -> None:
    configs = {arch: config(A, architecture=arch) for arch in ("amd64", "arm64")}
    entries = [{"Config": f"{a}.json", "RepoTags": ["web:1"], "Layers": ["a.tar"]} for a in configs]
    items: list[tuple[str, Item]] = [(f"{a}.json", data) for a, data in configs.items()]
    manifest = ("manifest.json", json.dumps(entries).encode())
    path = pack(tmp_path / "x.tar", [manifest, ("a.tar", A), *items])
    for arch, data in configs.items():
        image = archive(path, "web:1", platform=Platform("linux", arch))
        assert (image.platform.architecture, image.digest) == (arch, sha256(data))
    images = [
        layout.image(
            A, config_data=data, platform={"os": "linux", "architecture": arch}, annotations=ref_name("1")
        )
        for arch, data in configs.items()
    ]
    opened = open_layout(layout.index(*images), "1", platform=Platform("linux", "arm64"))
    assert opened.platform.architecture == "arm64"


def test_one_image_with_two_names(layout: Layout) -> None:
    images = [layout.image(A, annotations=ref_name(name)) for name in ("1", "latest")]
    assert open_layout(layout.index(*images), None, platform=AMD64).digest == images[0]["digest"]


def test_an_image_listed_once_for_each_name(archive: Open, tmp_path: Path) -> None:
    entries = [{"Config": "c.json", "RepoTags": [name], "Layers": ["1/layer.tar"]} for name in ("a:1", "b:2")]
    path = saved(tmp_path / "x.tar", manifest=entries, files={"c.json": config(A)})
    assert {archive(path, ref).digest for ref in (None, "a:1", "b:2")} == {sha256(config(A))}
    with pytest.raises(ConversionError, match="more than 1000 images"):
        archive(saved(tmp_path / "x.tar", manifest=entries * 501, files={"c.json": config(A)}))


# --- links in old archives ---


def test_layers_may_be_links_to_other_layers(archive: Open, tmp_path: Path) -> None:
    name = "c.json"
    layers = ["1/layer.tar", "2/layer.tar", "3/layer.tar", "4/layer.tar"]
    path = pack(
        tmp_path / "x.tar",
        [
            (name, config(A, A, A, A)),
            ("4/layer.tar", (tarfile.SYMTYPE, "/2/layer.tar")),
            ("./1/layer.tar", A),
            ("2/layer.tar", (tarfile.SYMTYPE, "../3/layer.tar")),
            ("3/layer.tar", (tarfile.LNKTYPE, "1/layer.tar")),
            ("manifest.json", json.dumps([{"Config": name, "RepoTags": [], "Layers": layers}]).encode()),
        ],
    )
    image = archive(path)
    check(image)
    assert len({layer.offset for layer in files_of(image)}) == 1


def test_links_that_lead_nowhere(archive: Open, tmp_path: Path) -> None:
    for target, message in (
        ("../2/layer.tar", "circle"),
        ("/etc/passwd", "missing"),
        ("../../../../etc/passwd", "missing"),
        (".", "not a file"),
    ):
        path = saved(tmp_path / "x.tar", files={"2": None, "2/layer.tar": (tarfile.SYMTYPE, target)})
        with pytest.raises(ConversionError, match=message):
            archive(path)


# --- damage ---


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({}, "must be a list"),
        ([], "no image in it"),
        ([1], "wrong type"),
        ([{"Config": 1, "Layers": []}], "wrong type"),
        ([{"Config": "c", "Layers": {"a": 1}}], "wrong type"),
        ([{"Config": "c", "Layers": [1]}], "wrong type"),
        ([{"Config": "c", "RepoTags": "web", "Layers": []}], "wrong type"),
        ([{"Config": "missing.json", "Layers": []}], "missing.json is missing"),
        ([{"Config": "../../etc/passwd", "Layers": []}], "is missing"),
        ([{"Config": "", "Layers": []}], "is missing"),
    ],
)
def test_a_wrong_manifest_json(archive: Open, tmp_path: Path, manifest: object, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        archive(saved(tmp_path / "x.tar", manifest=manifest))


@pytest.mark.parametrize(
    ("config_data", "message"),
    [
        (b"", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "must be an object"),
        (config(A), "2 layers.*diff ids of 1"),
        (config(A, B, A), "2 layers.*diff ids of 3"),
        (config(A, B, os="windows"), "a windows image"),
        (config(A, B, rootfs=[]), "must be an object"),
        (config(A, B, rootfs={"diff_ids": ["sha256:1", "x"]}), "not a sha256"),
    ],
)
def test_a_wrong_config(
    archive: Open, layout: Layout, tmp_path: Path, config_data: bytes, message: str
) -> None:
    with pytest.raises(ConversionError, match=message):
        archive(saved(tmp_path / "x.tar", config_data=config_data))
    path = layout.index(layout.image(A, B, config_data=config_data))
    with pytest.raises(ConversionError, match=message):
        open_layout(path, None, platform=AMD64)


def test_a_config_that_is_not_what_its_name_says(archive: Open, tmp_path: Path) -> None:
    name = sha256(config(A, B))[7:] + ".json"
    with pytest.raises(ConversionError, match="damaged: the digest of the config"):
        archive(saved(tmp_path / "x.tar", files={name: config(A, B, author="somebody else")}))


def test_no_layers(archive: Open, layout: Layout, tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "RepoTags": ["x"], "Layers": None}]
    with pytest.raises(ConversionError, match="no layers"):
        archive(saved(tmp_path / "x.tar", manifest=manifest, files={"c.json": config()}))
    with pytest.raises(ConversionError, match="no layers"):
        open_layout(layout.index(layout.image()), None, platform=AMD64)


def test_a_missing_layer(archive: Open, layout: Layout, tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "Layers": ["1/layer.tar", "9/layer.tar"]}]
    with pytest.raises(ConversionError, match=r"9/layer.tar is missing"):
        archive(saved(tmp_path / "x.tar", manifest=manifest, files={"c.json": config(A, B)}))
    path = layout.index(layout.image(A, B))
    (path / "blobs" / "sha256" / sha256(B)[7:]).unlink()
    with pytest.raises(ConversionError, match=f"{sha256(B)} is missing"):
        open_layout(path, None, platform=AMD64)


def test_every_way_to_cut_an_archive_short(archive: Open, tmp_path: Path) -> None:
    whole = (FIXTURES / "hello.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for length in range(0, end, 256):
        cut.write_bytes(whole[:length])
        try:
            check(archive(cut))  # after manifest.json nothing that counts is lost
            assert length > whole.index(b"manifest.json")
        except ConversionError as error:
            assert "\n" not in str(error)


def test_every_byte_of_the_headers_may_be_wrong(archive: Open, tmp_path: Path) -> None:
    whole = (FIXTURES / "hello.tar").read_bytes()
    bad = tmp_path / "bad.tar"
    refused = 0
    for at in range(0, 4608, 7):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            archive(bad)
        except ConversionError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"zzzzzzzzzzz\0", b"\xff" * 12]
)
def test_sizes_that_lie(archive: Open, tmp_path: Path, size: bytes) -> None:
    for kind in (b"0", b"L", b"x"):
        header = bytearray(tarfile.TarInfo("manifest.json").tobuf(tarfile.GNU_FORMAT))
        header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path = tmp_path / "x.tar"
        path.write_bytes(bytes(header) + bytes(2048))
        with pytest.raises(ConversionError, match=r"cut short|extended header of|claims a size|not a number"):
            archive(path)


def test_endless_long_names_are_no_recursion(archive: Open, tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    path = tmp_path / "x.tar"
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 5000 + bytes(1024))
    with pytest.raises(ConversionError, match="cut short"):
        archive(path)


def test_long_names_and_pax(archive: Open, tmp_path: Path) -> None:
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "long/" * 40 + "Grüße.tar"
        entry = {"Config": "c.json", "RepoTags": ["x"], "Layers": [name]}
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w", format=tar_format) as tar:
            for member, data in (
                (name, A),
                ("c.json", config(A)),
                ("manifest.json", json.dumps([entry]).encode()),
            ):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        check(archive(path))


def test_a_damaged_compressed_archive(archive: Open, tmp_path: Path) -> None:
    plain = (FIXTURES / "hello.tar").read_bytes()
    path = tmp_path / "x"
    for compress in (gzip.compress, lzma.compress, bz2.compress, zstandard.compress):
        packed = compress(plain)
        half = len(packed) // 2
        for bad in (packed[:half], packed[:half] + b"\xff" * 200 + packed[half + 200 :], packed[:9]):
            path.write_bytes(bad)
            with pytest.raises(ConversionError) as caught:
                archive(path)
            assert "\n" not in str(caught.value)


def test_blobs_are_verified(layout: Layout) -> None:
    image = layout.image(A)
    path = layout.index(image)
    blob = path / "blobs" / "sha256" / image["digest"][7:]
    good = blob.read_bytes()
    blob.write_bytes(good.replace(b"2", b"3", 1))
    with pytest.raises(ConversionError, match="corrupt"):
        open_layout(path, None, platform=AMD64)
    blob.write_bytes(good + b" ")
    with pytest.raises(ConversionError, match="bytes instead of"):
        open_layout(path, None, platform=AMD64)
    layout.index({**image, "size": 1 << 40})
    with pytest.raises(ConversionError, match="bytes instead of"):
        open_layout(path, None, platform=AMD64)


@pytest.mark.parametrize(
    "digest", ["../../../etc/passwd", "sha256:../../../x", "sha256:", "md5:" + "0" * 32, 5, None]
)
def test_a_digest_is_no_path(layout: Layout, digest: object) -> None:
    path = layout.index({"mediaType": "", "digest": digest, "size": 1})
    with pytest.raises(ConversionError, match="digest"):
        open_layout(path, None, platform=AMD64)


def test_links_do_not_lead_out_of_a_layout(layout: Layout, tmp_path: Path) -> None:
    path = layout.index(layout.image(A))
    blob = path / "blobs" / "sha256" / sha256(A)[7:]
    shutil.move(blob, path / "kept")
    blob.symlink_to("../../kept")
    check(open_layout(path, None, platform=AMD64))
    shutil.move(path / "kept", tmp_path / "elsewhere")
    blob.unlink()
    blob.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match="leads out of its folder"):
        open_layout(path, None, platform=AMD64)
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ConversionError, match="not a file"):
        open_layout(path, None, platform=AMD64)
    blob.unlink()
    blob.symlink_to(blob)
    with pytest.raises(ConversionError, match=r"Too many|loop|missing"):
        open_layout(path, None, platform=AMD64)


def test_indexes_may_not_be_nested_without_end(layout: Layout) -> None:
    inner = layout.image(A)
    for _ in range(20):
        index = json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode()
        inner = layout.put(index, f"{OCI}index.v1+json")
    with pytest.raises(ConversionError, match="nested"):
        open_layout(layout.index(inner), None, platform=AMD64)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("oci-layout", None, "oci-layout is missing"),
        ("oci-layout", b"{}", "version 1"),
        ("oci-layout", b"[]", "version 1"),
        ("oci-layout", b"", "JSON"),
        ("index.json", None, "index.json is missing"),
        ("index.json", b'{"manifests": 1}', "manifests must be a list"),
        ("index.json", b'{"manifests": []}', "no image in it"),
        ("index.json", b" " * (5 << 20), "bytes"),
        ("index.json", b"\xff\xfe", "JSON"),
    ],
)
def test_a_wrong_layout(layout: Layout, name: str, data: bytes | None, message: str) -> None:
    path = layout.index(layout.image(A))
    (path / name).unlink()
    if data is not None:
        (path / name).write_bytes(data)
    with pytest.raises(ConversionError, match=message):
        open_layout(path, None, platform=AMD64)


def test_the_wrong_transport(archive: Open, tmp_path: Path) -> None:
    cases: list[tuple[Callable[[], Image], str]] = [
        (lambda: archive(FIXTURES / "tricky.oci.tar.gz"), "try oci-archive:"),
        (lambda: archive(FIXTURES / "hello.tar", oci=True), "oci-layout is missing"),
        (lambda: archive(FIXTURES / "tricky.oci", oci=True), "try oci:"),
        (lambda: archive(FIXTURES / "tricky.oci"), "try oci:"),
        (
            lambda: open_layout(FIXTURES / "hello.tar", None, platform=AMD64),
            "try docker-archive:|try oci-archive:",
        ),
        (lambda: open_layout(tmp_path / "no", None, platform=AMD64), "there is no (file|folder)"),
        (lambda: archive(tmp_path / "no"), "there is no (file|folder)"),
        (lambda: archive(Path("/dev/zero")), "neither a file nor a folder"),
        (lambda: archive(FIXTURES / "sources" / "hello-amd64"), "a program, not an image"),
    ]
    for call, message in cases:
        with pytest.raises(ConversionError, match=message):
            call()


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, so be somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_permission_denied() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others as a whole
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(FIXTURES / "tricky.oci", folder / "layout")
        shutil.copy(FIXTURES / "hello.tar", folder / "file")
        for path in (folder / "file", folder / "layout" / "index.json"):
            path.chmod(0)
        (folder / "closed").mkdir(mode=0)
        calls: list[Callable[[], object]] = [
            lambda: open_archive(
                folder / "file", None, platform=AMD64, spool=folder, progress=SILENT, oci=False
            ),
            lambda: open_archive(
                folder / "closed" / "file", None, platform=AMD64, spool=folder, progress=SILENT, oci=True
            ),
            lambda: open_layout(folder / "layout", None, platform=AMD64),
            lambda: open_layout(folder / "closed", None, platform=AMD64),
            lambda: recognise(f"{folder}/file"),
            lambda: recognise(f"{folder}/closed"),
            lambda: recognise(f"{folder}/closed/file:1"),
            lambda: parse_reference(f"oci:{folder}/closed/layout"),
        ]
        for call in calls:
            with nobody(), pytest.raises(ConversionError, match=r"(?i)permission denied"):
                call()


def test_no_space_for_decompression_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="cannot decompress"):
        open_archive(
            FIXTURES / "both.tar.zst",
            "hello",
            platform=AMD64,
            spool=tmp_path / "gone",
            progress=SILENT,
            oci=False,
        )
