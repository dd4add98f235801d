"""Registries that ask for logins, break off, send rubbish and lie: the right result, or one clear line."""

from __future__ import annotations

import base64
import email.utils
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from converter.errors import ConversionError
from converter.image import access, registry
from converter.image.access import BusyError
from converter.image.model import Image, Platform
from converter.progress import Silent
from tests import lab
from tests.layers import files_of
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
    contents = [
        layer.path.read_bytes()[layer.offset : layer.offset + layer.size] for layer in files_of(image)
    ]
    assert [gzip.decompress(data) for data in contents] == LAYERS
    assert [layer.digest for layer in files_of(image)] == [
        f"sha256:{hashlib.sha256(d).hexdigest()}" for d in contents
    ]


def assert_only_verified(tmp_path: Path) -> None:
    """After a failure: there is nothing but what its digest says."""
    for path in (tmp_path / "spool").iterdir():
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
    [
        ("corrupt!", "is corrupt at"),
        ("longer!", r"announces 13001113 bytes for sha256:\w+ instead of 3001113"),
        ("shorter!", r"announces 3001112 bytes"),
        ("chunked!", "sends more for .* than its 3001113 bytes"),
    ],
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
    assert served.sent < 30_000_000  # of a hundred million: it hung up
    asked = [path for path, _, _ in served.requests if path.endswith(BIG)]
    assert len(asked) == (2 if fault == "corrupt!" else 1)


def test_cut_at_one_place_for_ever_comes_to_an_end(served: Served, tmp_path: Path) -> None:
    served.faults[BIG] = ["cut!"]
    served.ranges = False
    add_image(served, "v1")
    with pytest.raises(ConversionError, match=r"does not come from .*try again later"):
        fetch(served, tmp_path)
    assert_only_verified(tmp_path)
    assert len([path for path, _, _ in served.requests if path.endswith(BIG)]) == registry.ATTEMPTS


def test_cut_more_often_than_it_is_tried_in_a_row(served: Served, tmp_path: Path) -> None:
    """Every connection got further, so none of them was in vain."""
    served.faults[BIG] = ["cut"] * (registry.ATTEMPTS + 3)
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


@pytest.mark.parametrize(
    "faults",
    [
        ["cut", "416"],
        ["cut", "elsewhere", "cut", "elsewhere"],
        ["elsewhere"],
        ["cut", *["piecewise"] * 3],
        ["cut", "corrupt"],
    ],
)
def test_odd_answers_to_a_range(served: Served, tmp_path: Path, faults: list[str]) -> None:
    served.faults[BIG] = faults
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))
    assert not served.faults[BIG]


def test_a_failure_does_not_wait_for_a_layer_that_stalls(served: Served, tmp_path: Path) -> None:
    descriptor = add_image(served, "v1")
    small = json.loads(served.manifests[str(descriptor["digest"])][1])["layers"][0]["digest"]
    served.faults = {BIG: ["stall"], small: ["403"]}
    started = time.monotonic()
    with pytest.raises(ConversionError, match="asks for a login"):
        fetch(served, tmp_path)
    assert time.monotonic() - started < 10
    assert_only_verified(tmp_path)


def test_interrupted_while_a_layer_stalls(served: Served, tmp_path: Path) -> None:
    served.faults[BIG] = ["stall"]
    add_image(served, "v1")

    def interrupt() -> None:
        assert served.stalled.wait(30)
        time.sleep(0.3)  # for us to wait for it
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(served, tmp_path)
    thread.join()
    assert time.monotonic() - started < 10
    assert_only_verified(tmp_path)


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


def test_whom_we_are_sent_on_to_does_not_get_the_login_by_asking(served: Served, tmp_path: Path) -> None:
    with serve() as elsewhere:
        elsewhere.auth = "token"
        served.auth = "basic"
        served.redirect = f"http://{elsewhere.address}"
        add_image(served, "v1")
        log_in(tmp_path, served.address, auth=base64.b64encode(b"user:pass:word").decode())
        with pytest.raises(
            ConversionError, match=f"sends us on to http://{elsewhere.address}, which answers 401"
        ):
            fetch(served, tmp_path)
        assert elsewhere.requests
        assert all("/blobs/" in path and login is None for path, _, login in elsewhere.requests)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://[::1", "an address that is none"),
        ("http://127.0.0.1:99999/", "an address that is none"),
        ("http://\xff/", "an address that is none"),
        ("file:///etc/passwd", "which is not https"),
        ("/v2/test/image/manifests/v1?again", "more than 10 times"),
    ],
)
def test_bad_redirects(served: Served, tmp_path: Path, location: str, message: str) -> None:
    served.answers["/v2/test/image/manifests/v1"] = (307, {"Location": location})
    with pytest.raises(ConversionError, match=message):
        fetch(served, tmp_path)


def test_a_token_that_runs_out_between_two_layers(served: Served, tmp_path: Path) -> None:
    served.auth = "token"
    served.faults[BIG] = ["expired"]
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "sent no token"),
        (b'{"token": 7}', "sent no token"),
        (b'{"token": "a\\r\\nX: y"}', "sent no token"),
        (b'{"token": "\xe4\xb8\x96"}', "sent no token"),
        (b" " * 3_000_000, "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_hostile_tokens(served: Served, tmp_path: Path, body: bytes, message: str) -> None:
    served.auth = "token"
    served.token_body = body
    add_image(served, "v1")
    with pytest.raises(ConversionError, match=message):
        fetch(served, tmp_path)


@pytest.mark.parametrize(
    "realm", ["", "ftp://127.0.0.1/", "http://[::1", "http://", "http://127.0.0.1:99999/"]
)
def test_hostile_realms(served: Served, tmp_path: Path, realm: str) -> None:
    served.auth = "token"
    served.challenge = f'Bearer realm="{realm}",service="lab"'
    with pytest.raises(ConversionError, match=r"which is not https|an address that is none"):
        fetch(served, tmp_path)


def test_an_unknown_kind_of_login(served: Served, tmp_path: Path) -> None:
    served.auth = "token"
    served.challenge = "Negotiate"
    with pytest.raises(ConversionError, match="asks for a login"):
        fetch(served, tmp_path)


def test_a_proxy_is_not_asked_for_loopback(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    add_image(served, "v1")
    assert_whole(fetch(served, tmp_path))


def test_how_long_a_busy_registry_wants_to_be_left_alone() -> None:
    def seconds(after: str) -> float | None:
        response = requests.Response()
        response.status_code = 429
        response.headers["Retry-After"] = after
        return BusyError(response).seconds

    assert seconds("7") == 7
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100))
    assert 90 < (seconds(later) or 0) <= 100
    for text in ("", "-1", "soon", "٣", "9" * 400, "Wed, 99 Oct 2015"):
        assert (seconds(text) or 0) >= 0


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


def changed(served: Served, descriptor: dict[str, object], **fields: Any) -> None:
    """Put the image under the tag v1 with other fields in its manifest."""
    document = json.loads(served.manifests[str(descriptor["digest"])][1])
    served.add_manifest({**document, **fields}, OCI_MANIFEST, "v1")


def test_a_layer_that_the_registry_lacks(served: Served, tmp_path: Path) -> None:
    add_image(served, "v1")
    del served.blobs[BIG]
    with pytest.raises(ConversionError, match=f"lacks its blob {BIG}"):
        fetch(served, tmp_path)
    assert_only_verified(tmp_path)


@pytest.mark.parametrize("url", ["https://example.org/layer?signature=secret", "http://[::1"])
def test_a_foreign_layer(served: Served, tmp_path: Path, url: str) -> None:
    """From the registry when it has it; never from wherever an untrusted manifest points to."""
    descriptor = add_image(served)
    layers = json.loads(served.manifests[str(descriptor["digest"])][1])["layers"]
    layers[1] = {**layers[1], "urls": [url]}
    layers[1]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    changed(served, descriptor, layers=layers)
    assert_whole(fetch(served, tmp_path))
    del served.blobs[BIG]
    with pytest.raises(ConversionError, match=r"may not hand out its layer .*docker pull") as raised:
        fetch(served, tmp_path)
    assert "secret" not in str(raised.value)


def test_a_layer_twice(served: Served, tmp_path: Path) -> None:
    descriptor = add_image(served)
    document = json.loads(served.manifests[str(descriptor["digest"])][1])
    config = json.loads(served.blobs[document["config"]["digest"]])
    config["rootfs"]["diff_ids"].append(config["rootfs"]["diff_ids"][0])
    changed(
        served,
        descriptor,
        config={**document["config"], **served.add(json.dumps(config).encode())},
        layers=[*document["layers"], document["layers"][0]],
    )
    image = fetch(served, tmp_path)
    assert [layer.path for layer in files_of(image)] == [files_of(image)[n].path for n in (0, 1, 0)]
    asked = [path for path, _, _ in served.requests if path.endswith(str(image.layers[0].digest))]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"os": "windows", "rootfs": {"diff_ids": ["sha256:" + "0" * 64] * 2}}, "a windows image"),
        ({"os": "linux", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}, "2 layers, but .* diff ids of 1"),
        ({"os": "linux", "rootfs": {"diff_ids": ["x", "y"]}}, "not a sha256"),
        ([], "must be an object"),
    ],
)
def test_a_bad_config_is_refused_before_any_layer_is_fetched(
    served: Served, tmp_path: Path, config: object, message: str
) -> None:
    descriptor = add_image(served)
    data = json.dumps(config).encode()
    media_type = "application/vnd.oci.image.config.v1+json"
    changed(served, descriptor, config={"mediaType": media_type, **served.add(data)})
    with pytest.raises(ConversionError, match=message):
        fetch(served, tmp_path)
    assert not [path for path, _, _ in served.requests if path.endswith(BIG)]


def test_more_than_fits_on_the_disk(served: Served, tmp_path: Path) -> None:
    descriptor = add_image(served)
    layers = json.loads(served.manifests[str(descriptor["digest"])][1])["layers"]
    changed(served, descriptor, layers=[{**layers[0], "size": 1 << 49}, layers[1]])
    with pytest.raises(ConversionError, match=r"has 5368\d* MiB and .* MiB free; make room first"):
        fetch(served, tmp_path)
    digests = [layer["digest"] for layer in layers]
    assert not [path for path, _, _ in served.requests if path.endswith(tuple(digests))]


def test_a_config_that_is_no_config(served: Served, tmp_path: Path) -> None:
    descriptor = add_image(served)
    config = json.loads(served.manifests[str(descriptor["digest"])][1])["config"]
    changed(served, descriptor, config={**config, "size": 5 << 20})
    with pytest.raises(ConversionError, match="its config has 5242880 bytes"):
        fetch(served, tmp_path)


def test_a_digest_that_cannot_be_verified_is_not_asked_for(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="not a sha256 or sha512"):
        fetch(served, tmp_path, "test/image@md5:" + "0" * 32)
    assert not served.requests


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"127\.0\.0\.1:1 does not answer: Connection refused"):
        registry.fetch("127.0.0.1:1/a", platform=AMD64, spool=tmp_path / "spool", progress=Silent())


class Tls(NamedTuple):
    """A registry's certificate and its authority, and a client's own."""

    authority: Path
    server: ssl.SSLContext
    client: Path
    key: Path


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Made by openssl, as an administrator would."""
    place = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name, subject in (("ca", "/CN=lab authority"), ("server", "/CN=lab"), ("client", "/CN=us")):
        command = [
            "openssl",
            "req",
            "-x509",
            *key,
            "-subj",
            subject,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.crt",
        ]
        if name != "ca":
            command += ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:false"]
            command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=place, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(place / "server.crt", place / "server.key")
    return Tls(place / "ca.crt", server, place / "client.crt", place / "client.key")


def trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: Tls, how: str, address: str) -> None:
    directory = tmp_path / "certs.d" / address
    directory.mkdir(parents=True)
    monkeypatch.setattr(access, "CERTIFICATES", (tmp_path / "certs.d",))
    if how == "certs.d":
        shutil.copy(tls.authority, directory / "lab.crt")
    else:
        monkeypatch.setenv(how, str(tls.authority))


@pytest.mark.parametrize("how", ["certs.d", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_ones_own(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with serve(tls.server) as served:
        add_image(served, "v1")
        served.auth = "token"
        with pytest.raises(ConversionError, match=r"unable to get local issuer.*put its CA into .*certs\.d"):
            fetch(served, tmp_path)
        assert not served.requests
        trust(monkeypatch, tmp_path, tls, how, served.address)
        assert_whole(fetch(served, tmp_path))


def test_a_bundle_that_is_not_there(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with serve(tls.server) as served, pytest.raises(ConversionError, match=r"/nowhere/ca\.pem"):
        fetch(served, tmp_path)


def test_a_certificate_of_ours(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demanding = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    demanding.load_cert_chain(tls.authority.with_name("server.crt"), tls.authority.with_name("server.key"))
    demanding.load_verify_locations(tls.authority)
    demanding.verify_mode = ssl.CERT_REQUIRED
    with serve(demanding) as served:
        add_image(served, "v1")
        trust(monkeypatch, tmp_path, tls, "certs.d", served.address)
        with pytest.raises(ConversionError):
            fetch(served, tmp_path)
        assert not served.requests
        shutil.copy(tls.client, tmp_path / "certs.d" / served.address / "us.cert")
        shutil.copy(tls.key, tmp_path / "certs.d" / served.address / "us.key")
        assert_whole(fetch(served, tmp_path))


def test_out_of_tls_there_is_no_way(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tls.server) as served, serve() as plain:
        trust(monkeypatch, tmp_path, tls, "certs.d", served.address)
        add_image(served, "v1")
        plain.blobs = served.blobs
        served.redirect = f"http://{plain.address}"
        with pytest.raises(
            ConversionError, match=f"sends us on to http://{plain.address}, which is not https"
        ):
            fetch(served, tmp_path)
        served.redirect = None
        served.auth = "token"
        served.challenge = f'Bearer realm="http://{plain.address}/token",service="lab"'
        with pytest.raises(ConversionError, match="for a token, which is not https"):
            fetch(served, tmp_path)
        assert not plain.requests


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


@pytest.mark.lab
@pytest.mark.parametrize("form", ["oci", "v2s2"])
@pytest.mark.parametrize("kind", ["plain", "private"])
def test_debians_registry(tmp_path: Path, request: pytest.FixtureRequest, form: str, kind: str) -> None:
    """An image that skopeo pushed from a layout, in both manifest formats, with a login of docker and of podman."""
    real: lab.Registry = request.getfixturevalue(f"{kind}_registry")
    with serve() as made:
        descriptor = add_image(made)
        layout = tmp_path / "layout"
        for digest, data in {
            **made.blobs,
            str(descriptor["digest"]): made.manifests[str(descriptor["digest"])][1],
        }.items():
            path = layout / "blobs" / digest.replace(":", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    named = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    name = f"{real.address}/team/{form}:v1"
    login = ["--dest-creds", real.login] if real.login else []
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"--format={form}"]
    lab.run(*copy, *login, f"oci:{layout}:v1", f"docker://{name}")

    def fetched(reference: str) -> Image:
        return registry.fetch(reference, platform=AMD64, spool=tmp_path / "spool", progress=Silent())

    if real.login is not None:
        with pytest.raises(ConversionError, match=f"asks for a login.*docker login {real.address}"):
            fetched(name)
        auth = base64.b64encode(real.login.encode()).decode()
        log_in(tmp_path, f"{real.address}/team", auth="nobody's, docker has no such keys")
        (tmp_path / "home/containers").mkdir()
        podman = tmp_path / "home/containers/auth.json"
        podman.write_text(json.dumps({"auths": {f"{real.address}/team": {"auth": auth}}}))
        assert_whole(fetched(name))
        podman.unlink()
        log_in(tmp_path, real.address, auth=auth)
    image = fetched(name)
    assert_whole(image)
    assert image.source == f"docker://{name}"
    arguments = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}"]
    seen = lab.run(*arguments, *(["--creds", real.login] if real.login else [])).stdout.strip()
    assert image.digest == seen
    assert fetched(f"{real.address}/team/{form}@{seen}").layers == image.layers
    with pytest.raises(ConversionError, match=r"has no .*:v2; check the name and the tag"):
        fetched(f"{real.address}/team/{form}:v2")
