"""Registries that ask for logins, break off, send rubbish and lie: the right result, or one clear line."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.errors import ConversionError
from converter.image import registry
from converter.image.model import Image, Platform
from converter.progress import Silent
from tests.registry_server import Served, serve

AMD64 = Platform("linux", "amd64")
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def tar_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


LAYERS = [tar_of("small", b"text"), tar_of("big", random.Random(1).randbytes(3_000_000))]


def add_image(
    served: Served, *names: str, architecture: str = "amd64", docker: bool = False
) -> dict[str, object]:
    """An image of two layers; the manifest's descriptor."""
    kind = "application/vnd.docker" if docker else "application/vnd.oci"
    config = {
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(t).hexdigest()}" for t in LAYERS]},
    }
    config_type = f"{kind}.container.image.v1+json" if docker else f"{kind}.image.config.v1+json"
    layer_type = f"{kind}.image.rootfs.diff.tar.gzip" if docker else f"{kind}.image.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": config_type, **served.add(json.dumps(config).encode())},
        "layers": [{"mediaType": layer_type, **served.add(gzip.compress(tar, mtime=0))} for tar in LAYERS],
    }
    return served.add_manifest(manifest, DOCKER_MANIFEST if docker else OCI_MANIFEST, *names)


BIG = f"sha256:{hashlib.sha256(gzip.compress(LAYERS[1], mtime=0)).hexdigest()}"


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No logins but the test's own, and no waiting."""
    monkeypatch.setattr(registry, "PAUSE", 0.001)
    for name in ("HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "spool").mkdir()


def log_in(tmp_path: Path, address: str, **entry: str) -> None:
    (tmp_path / "home/config.json").write_text(json.dumps({"auths": {address: entry}}))


def fetch(served: Served, tmp_path: Path, name: str = "test/image:v1", platform: Platform = AMD64) -> Image:
    address = served.address
    return registry.fetch(f"{address}/{name}", platform=platform, spool=tmp_path / "spool", progress=Silent())


def assert_whole(image: Image) -> None:
    contents = [layer.path.read_bytes()[layer.offset : layer.offset + layer.size] for layer in image.layers]
    assert [gzip.decompress(data) for data in contents] == LAYERS
    assert [layer.digest for layer in image.layers] == [
        f"sha256:{hashlib.sha256(d).hexdigest()}" for d in contents
    ]


def assert_only_verified(tmp_path: Path) -> None:
    """After a failure: under a final name lies only what its digest says."""
    for path in (tmp_path / "spool").iterdir():
        if path.suffix != ".partial":
            assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("docker", [False, True])
def test_an_image(served: Served, tmp_path: Path, docker: bool) -> None:
    descriptor = add_image(served, "v1", docker=docker)
    image = fetch(served, tmp_path)
    assert_whole(image)
    assert image.digest == descriptor["digest"]
    assert image.source == f"docker://{served.address}/test/image:v1"
    by_digest = fetch(served, tmp_path, f"test/image@{descriptor['digest']}")
    assert by_digest.digest == descriptor["digest"]


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_a_manifest_list(served: Served, tmp_path: Path, media_type: str) -> None:
    entries = []
    for architecture, variant in (("arm64", "v8"), ("amd64", ""), ("arm", "v7"), ("arm", "v6")):
        entry = add_image(served, architecture=architecture)
        platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
        entries.append({**entry, "platform": platform})
    served.add_manifest({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, media_type, "v1")
    assert fetch(served, tmp_path).platform == AMD64
    assert fetch(served, tmp_path, platform=Platform("linux", "arm64")).digest == entries[0]["digest"]
    assert fetch(served, tmp_path, platform=Platform("linux", "arm", "v7")).digest == entries[2]["digest"]
    with pytest.raises(
        ConversionError, match=r"no image for linux/s390x; there is linux/arm64/v8, linux/amd64"
    ):
        fetch(served, tmp_path, platform=Platform("linux", "s390x"))


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_with_a_login(served: Served, tmp_path: Path, auth: str) -> None:
    served.auth = auth
    add_image(served, "v1")
    log_in(tmp_path, served.address, auth=base64.b64encode(b"user:pass:word").decode())
    assert_whole(fetch(served, tmp_path))


def test_anonymous_token(served: Served, tmp_path: Path) -> None:
    served.auth = "token"
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


def test_identity_token(served: Served, tmp_path: Path) -> None:
    served.auth = "refresh"
    add_image(served, "v1")
    log_in(tmp_path, served.address, auth=base64.b64encode(b"user:").decode(), identitytoken="identity")
    assert_whole(fetch(served, tmp_path))


def test_a_credential_helper(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.auth = "basic"
    add_image(served, "v1")
    helper = tmp_path / "home/docker-credential-lab"
    answer = json.dumps({"ServerURL": served.address, "Username": "user", "Secret": "pass:word"})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    (tmp_path / "home/config.json").write_text(json.dumps({"credHelpers": {served.address: "lab"}}))
    assert_whole(fetch(served, tmp_path))


@pytest.mark.parametrize("key", ["{}", "{}/test", "{}/test/image"])
def test_podmans_login(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    served.auth = "basic"
    add_image(served, "v1")
    entries = {
        key.format(served.address): {"auth": base64.b64encode(b"user:pass:word").decode()},
        f"{served.address}/test/other": {"auth": base64.b64encode(b"wrong:wrong").decode()},
    }
    (tmp_path / "auth.json").write_text(json.dumps({"auths": entries}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert_whole(fetch(served, tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"HOST": {"auth": "!"}}}'])
def test_a_broken_login_file(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    served.auth = "basic"
    add_image(served, "v1")
    (tmp_path / "auth.json").write_text(text.replace("HOST", served.address))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with pytest.raises(ConversionError, match=r"auth\.json|asks for a login"):
        fetch(served, tmp_path)


def test_refused_says_how_to_log_in(served: Served, tmp_path: Path) -> None:
    served.auth = "basic"
    add_image(served, "v1")
    with pytest.raises(ConversionError, match=f"asks for a login.*docker login {served.address}"):
        fetch(served, tmp_path)
    log_in(tmp_path, served.address, auth=base64.b64encode(b"user:wrong").decode())
    with pytest.raises(ConversionError, match="login for it was refused"):
        fetch(served, tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_cut_mid_layer(served: Served, tmp_path: Path, ranges: bool) -> None:
    served.ranges = ranges
    served.faults[BIG] = ["cut", "cut"]
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))
    asked = [header for path, header, _ in served.requests if path.endswith(BIG)]
    size = len(gzip.compress(LAYERS[1], mtime=0))
    assert asked[0] is None
    assert asked[1] == f"bytes={size // 2}-"  # it goes on where it was
    assert len(asked) == 3


def test_a_connection_that_is_always_cut_at_the_start(served: Served, tmp_path: Path) -> None:
    served.faults[BIG] = ["500!"]
    add_image(served, "v1")
    with pytest.raises(ConversionError, match=r"does not come from .*: it answers 500"):
        fetch(served, tmp_path)
    assert_only_verified(tmp_path)


def test_busy_then_well(served: Served, tmp_path: Path) -> None:
    served.faults = {BIG: ["429", "503", "500"], "v1": ["429", "502"]}
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


@pytest.mark.parametrize(
    ("fault", "message"),
    [("corrupt!", "is corrupt at"), ("longer!", "sends more"), ("shorter!", "does not come from")],
)
def test_a_layer_that_is_not_what_was_promised(
    served: Served, tmp_path: Path, fault: str, message: str
) -> None:
    served.faults[BIG] = [fault]
    served.ranges = False
    add_image(served, "v1")
    with pytest.raises(ConversionError, match=message):
        fetch(served, tmp_path)
    assert_only_verified(tmp_path)
    size = len(gzip.compress(LAYERS[1], mtime=0))
    assert all(path.stat().st_size <= size for path in (tmp_path / "spool").iterdir())


def test_corrupt_once_is_fetched_again(served: Served, tmp_path: Path) -> None:
    served.faults[BIG] = ["corrupt"]
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


def test_a_redirect_does_not_carry_the_login(served: Served, tmp_path: Path) -> None:
    with serve() as elsewhere:
        elsewhere.blobs = served.blobs
        served.auth = "basic"
        served.redirect = f"http://{elsewhere.address}"
        add_image(served, "v1")
        log_in(tmp_path, served.address, auth=base64.b64encode(b"user:pass:word").decode())
        assert_whole(fetch(served, tmp_path))
        assert elsewhere.requests
        assert {authorization for _, _, authorization in elsewhere.requests} == {None}


def test_a_login_in_netrc_is_not_sent(served: Served, tmp_path: Path) -> None:
    (tmp_path / "home/.netrc").write_text("machine 127.0.0.1 login a password b\n")
    add_image(served, "v1")
    fetch(served, tmp_path)
    assert {authorization for _, _, authorization in served.requests} == {None}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"{}", "schemaVersion"),
        (b'{"schemaVersion": 2, "mediaType": [1]}', "mediaType"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"schemaVersion": 2, "config": 7}', "must be an object"),
        (b'{"schemaVersion": 2, "manifests": 7}', "list of objects"),
        (b'{"schemaVersion": 2, "manifests": []}', "no image for linux/amd64"),
        (b" " * (5 << 20), "more than"),
        (
            {
                "schemaVersion": 2,
                "config": {"digest": "sha256:" + "0" * 64, "size": -1},
            },
            "size",
        ),
        ({"schemaVersion": 2, "config": {"digest": "../../etc", "size": 1}}, "not a sha256"),
        (
            {"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64, "size": 1}, "layers": []},
            "no layers",
        ),
        (
            {
                "schemaVersion": 2,
                "config": {"mediaType": "application/x.helm", "digest": "sha256:" + "0" * 64, "size": 1},
            },
            "artifact",
        ),
    ],
)
def test_hostile_manifests(served: Served, tmp_path: Path, document: object, message: str) -> None:
    served.add_manifest(document, OCI_MANIFEST, "v1")
    with pytest.raises(ConversionError, match=message):
        fetch(served, tmp_path)
    assert not list((tmp_path / "spool").iterdir())


def test_a_manifest_that_is_not_the_digest(served: Served, tmp_path: Path) -> None:
    descriptor = add_image(served, "v1")
    served.manifests[str(descriptor["digest"])] = (OCI_MANIFEST, b"{}")
    with pytest.raises(ConversionError, match="something else"):
        fetch(served, tmp_path, f"test/image@{descriptor['digest']}")


def test_an_index_within_itself_comes_to_an_end(served: Served, tmp_path: Path) -> None:
    inner = add_image(served)
    for _ in range(20):
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [inner]}
        inner = served.add_manifest(index, OCI_INDEX, "v1")
    with pytest.raises(ConversionError, match="nested"):
        fetch(served, tmp_path)


def test_no_such_tag(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=f"{served.address} has no {served.address}/test/image:v2"):
        fetch(served, tmp_path, "test/image:v2")


def test_plain_http_only_where_it_is_allowed() -> None:
    from converter.image.name import parse_image_name

    def schemes(name: str, *, plain_http: bool = False) -> list[str]:
        client = registry._Client(parse_image_name(name), plain_http=plain_http)
        return [base.partition(":")[0] for base in client._bases]

    for loopback in ("localhost:5000/a", "127.0.0.1:5000/a", "127.9.9.9/a", "[::1]:5000/a"):
        assert schemes(loopback) == ["https", "http"]
    for remote in (
        "example.org/a",
        "10.0.0.1:5000/a",
        "localhost.example.org/a",
        "127.0.0.1.example.org/a",
        "a",
    ):
        assert schemes(remote) == ["https"]
    assert schemes("10.0.0.1:5000/a", plain_http=True) == ["http"]
