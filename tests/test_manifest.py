"""Indexes and manifests: which image is chosen, what is refused, and that strangers' JSON breaks nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.image.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_DOCUMENT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    check_digest,
    choose,
    is_index,
    parse_index,
    parse_json,
    parse_manifest,
    verify,
)
from converter.image.model import Platform, parse_platform

DIGEST = "sha256:" + "0" * 64
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def described(
    number: int = 0, media_type: str = LAYER_TYPE, size: object = 10, **more: Any
) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(number), "size": size, **more}


def manifest(**fields: Any) -> bytes:
    document = {"schemaVersion": 2, "config": described(1, CONFIG_TYPE), "layers": [described(2)]}
    return json.dumps({**document, **fields}).encode()


def offer(*platforms: str | None, **annotations: str) -> list[Descriptor]:
    return [
        Descriptor(OCI_MANIFEST, digest(n), 10, _as_written(text) if text else None, annotations)
        for n, text in enumerate(platforms)
    ]


def _as_written(text: str) -> Platform:
    """Not parse_platform, which already corrects spellings."""
    os, architecture, *variant = text.split("/")
    return Platform(os, architecture, variant[0] if variant else None)


def test_an_image_manifest() -> None:
    layers = [described(2), described(3, annotations={"a": "b", "c": 1}, urls=["https://example.org/x", 7])]
    read = parse_manifest(manifest(layers=layers))
    assert read.config == Descriptor(CONFIG_TYPE, digest(1), 10)
    assert [layer.digest for layer in read.layers] == [digest(2), digest(3)]
    assert read.layers[1].annotations == {"a": "b"}
    assert read.layers[1].urls == ("https://example.org/x",)


def test_a_layer_twice_is_an_image() -> None:
    assert len(parse_manifest(manifest(layers=[described(2), described(2)])).layers) == 2


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
        ("linux/amd64", ["linux/amd64/v2", "linux/386"], 1),
        ("linux/amd64/v3", ["linux/386", "linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 2),
        ("linux/amd64/v3", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["Linux/x86_64"], 0),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/arm64", ["linux/aarch64"], 0),
        ("linux/arm64", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v7", ["linux/armel", "linux/armhf"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/armel"], 1),
        ("linux/riscv64", ["linux/amd64", "linux/riscv64"], 1),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], 1),
    ],
)
def test_the_choice_is_containerds(wanted: str, offered: list[str], chosen: int) -> None:
    assert choose(offer(*offered), _as_written(wanted)).digest == digest(chosen)


@pytest.mark.parametrize(
    ("wanted", "offered"),
    [
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm"]),  # a plain arm is v7
        ("linux/arm/v7", ["linux/arm64"]),
        ("linux/386", ["linux/amd64"]),
        ("linux/amd64", ["linux/amd64/v2"]),
        ("linux/amd64", ["windows/amd64"]),
        ("linux/ppc64le", ["linux/ppc64"]),
    ],
)
def test_nothing_that_would_not_run(wanted: str, offered: list[str]) -> None:
    with pytest.raises(
        ConversionError, match=f"no image for {wanted}; there is {', '.join(offered)}; choose"
    ):
        choose(offer(*offered), parse_platform(wanted))


def test_the_first_of_two_equals() -> None:
    assert choose(offer("linux/amd64", "linux/amd64"), parse_platform("amd64")).digest == digest(0)


def test_attestations_are_no_images() -> None:
    entries = [
        *offer("unknown/unknown"),
        *offer(None, **{"vnd.docker.reference.type": "attestation-manifest"}),
    ]
    with pytest.raises(ConversionError, match="there is nothing for any platform"):
        choose(entries, parse_platform("amd64"))
    images = offer("linux/arm64", "linux/amd64")
    assert choose([*entries, *images], parse_platform("amd64")) == images[1]


def test_an_only_manifest_may_be_silent_about_its_platform() -> None:
    entries = offer(None)
    assert choose([*offer("unknown/unknown"), *entries], parse_platform("s390x")) == entries[0]


def test_a_thousand_platforms_fit_on_a_line() -> None:
    with pytest.raises(ConversionError, match="and 980 more; choose") as raised:
        choose(offer(*(f"linux/{n:x<5000}" for n in range(1000))), parse_platform("amd64"))
    assert len(str(raised.value)) < 3000


@pytest.mark.parametrize(
    ("document", "media_type", "expected"),
    [
        ({"mediaType": OCI_INDEX, "manifests": []}, "", True),
        ({"mediaType": DOCKER_LIST, "manifests": []}, "", True),
        ({"mediaType": OCI_MANIFEST, "layers": []}, OCI_INDEX, False),  # its own word counts
        ({"mediaType": DOCKER_MANIFEST}, "", False),
        ({"manifests": []}, "", True),
        ({"manifests": []}, OCI_INDEX, True),
        ({"layers": []}, "", False),
        ({"layers": []}, OCI_MANIFEST, False),
    ],
)
def test_index_or_manifest(document: object, media_type: str, expected: bool) -> None:
    assert is_index(Descriptor(media_type, DIGEST, 1), json.dumps(document).encode()) is expected


@pytest.mark.parametrize("other", ["layers", "config"])
def test_what_is_both_index_and_manifest_is_refused(other: str) -> None:
    document = json.dumps({"mediaType": OCI_MANIFEST, "manifests": [], other: []}).encode()
    with pytest.raises(ConversionError, match="both an index and an image"):
        is_index(Descriptor("", DIGEST, 1), document)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schemaVersion": 1}, "schema 1.*push the image again"),
        ({"fsLayers": []}, "schema 1"),
        ({"schemaVersion": 3}, "not an image: its manifest lacks schemaVersion 2"),
        ({"schemaVersion": None, "mediaType": "application/vnd.x"}, "not an image: its type is .*vnd.x"),
        ({"config": None}, "must be an object"),
        ({"config": described(1, "application/vnd.cncf.helm.config.v1+json")}, "artifact of type .*helm"),
        ({"config": described(1, "application/vnd.oci.empty.v1+json"), "layers": []}, "artifact"),
        ({"artifactType": "application/vnd.sbom"}, "artifact of type .*sbom"),
        ({"config": described(1, CONFIG_TYPE, size=-1)}, "a size in config is -1"),
        ({"config": described(1, CONFIG_TYPE, size=True)}, "a size in config is True"),
        ({"config": described(1, CONFIG_TYPE, size=1.0)}, "a size in config is 1.0"),
        ({"config": described(1, CONFIG_TYPE, size=1 << 60)}, "a size in config is"),
        ({"config": {**described(1, CONFIG_TYPE), "digest": "../../etc/passwd"}}, "not a sha256 or sha512"),
        ({"config": {**described(1, CONFIG_TYPE), "digest": DIGEST + "\n"}}, "not a sha256 or sha512"),
        ({"config": {**described(1, CONFIG_TYPE), "digest": ["x"]}}, "not a sha256 or sha512"),
        ({"config": {**described(1, CONFIG_TYPE), "digest": "md5:" + "0" * 32}}, "not a sha256 or sha512"),
        ({"config": {**described(1, CONFIG_TYPE), "mediaType": 1}}, "wrong types"),
        ({"layers": {}}, "list of objects"),
        ({"layers": [1]}, "list of objects"),
        ({"layers": []}, "no layers"),
        ({"layers": [described(n) for n in range(2, 1100)]}, "1098 layers"),
        ({"layers": [described(2, urls="x")]}, "wrong types"),
        ({"layers": [described(2, annotations=[1])]}, "wrong types"),
        ({"layers": [described(2, platform={"os": 1})]}, "wrong types"),
        ({"layers": [described(2, LAYER_TYPE + "+encrypted")]}, "encrypted"),
        ({"layers": [described(2, "application/vnd.in-toto+json")]}, "in-toto.*attestation"),
        ({"layers": [described(2, size=10), described(2, size=11)]}, "has two sizes"),
        ({"layers": [described(1, size=1 << 40)]}, "has two sizes"),  # the config's digest, out of all bounds
    ],
)
def test_refused_manifests(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        parse_manifest(manifest(**fields))


@pytest.mark.parametrize("field", ["mediaType", "digest", "artifactType", "size"])
def test_a_message_stays_short(field: str) -> None:
    huge: object = [["x" * 100] * 1000] if field == "size" else "x" * 1_000_000
    fields = {"artifactType": huge} if field == "artifactType" else {"config": {**described(1), field: huge}}
    with pytest.raises(ConversionError) as raised:
        parse_manifest(manifest(**fields))
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b"[" * 150 + b"]" * 150,
        b"NaN",
        b'{"size": Infinity}',
        b"1" * 5000,
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_bad_json_is_one_line(data: bytes) -> None:
    with pytest.raises(ConversionError, match=r"^the thing (is not valid JSON|has \d+ bytes, more than)"):
        parse_json(data, "the thing")


def test_json_has_a_largest_size() -> None:
    assert parse_json(b"[]" + b" " * (MAX_DOCUMENT - 2), "it") == []
    with pytest.raises(ConversionError, match="it has 4194305 bytes, more than"):
        parse_json(b"[]" + b" " * (MAX_DOCUMENT - 1), "it")


def test_json_is_read_as_go_reads_it() -> None:
    read = parse_json(
        b'\xef\xbb\xbf{"\\ud800": "a\\udfffb\xff", "pair": "\\ud83d\\udc33", "x": 1, "x": 2}', "it"
    )
    assert read == {"\ufffd": "a\ufffdb\ufffd", "pair": "🐳", "x": 2}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_verify(algorithm: str) -> None:
    found = f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}"
    assert check_digest(found) == found
    verify(b"data", Descriptor("", found, 4))
    with pytest.raises(ConversionError, match="has 5 bytes instead of 4"):
        verify(b"data!", Descriptor("", found, 4))
    with pytest.raises(ConversionError, match="is corrupt"):
        verify(b"Data", Descriptor("", found, 4))


@pytest.mark.parametrize("document", [b"[]", b"{}", b'{"manifests": {}}', b'{"manifests": [[]]}'])
def test_refused_indexes(document: bytes) -> None:
    with pytest.raises(ConversionError, match="image index is not valid"):
        parse_index(document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = (
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "digest",
    "size",
    "platform",
    "os",
    "urls",
)


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON | st.dictionaries(st.sampled_from(_FIELDS), _JSON)))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    """Whatever types strangers put where, it is a result or a ConversionError."""
    for whole in (
        document,
        {"schemaVersion": 2, "config": document, "layers": [document]},
        {"manifests": [document]},
    ):
        data = json.dumps(whole).encode()
        try:
            if is_index(Descriptor("", DIGEST, 1), data):
                assert isinstance(choose(parse_index(data), parse_platform("amd64")), Descriptor)
            else:
                assert parse_manifest(data).layers
        except ConversionError as error:
            assert str(error)
