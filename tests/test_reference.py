"""What a SOURCE on the command line means, and which machine name it gives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.image.name import is_image_name, parse_image_name
from converter.image.reference import Reference, check_machine_name, machine_name, parse_reference, recognise

FIXTURES = Path(__file__).parent.parent / "fixtures"
HEX = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(2000)


def tarball(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("docker-daemon:debian:12", Reference("docker-daemon", "debian:12")),
        (f"docker-daemon:sha256:{HEX}", Reference("docker-daemon", f"sha256:{HEX}")),
        (f"docker-daemon:{HEX}", Reference("docker-daemon", HEX)),
        ("container:web_1", Reference("container", "web_1")),
        ("container:/web_1", Reference("container", "web_1")),
        ("docker://ghcr.io/acme/web:1.2", Reference("docker", "ghcr.io/acme/web:1.2")),
        (f"docker://debian@sha256:{HEX}", Reference("docker", f"debian@sha256:{HEX}")),
        ("docker://[::1]:5000/web", Reference("docker", "[::1]:5000/web")),
        ("docker-archive:a.tar", Reference("docker-archive", "a.tar")),
        ("docker-archive:a.tar:web:1", Reference("docker-archive", "a.tar", "web:1")),
        ("oci:dir", Reference("oci", "dir")),
        ("oci:dir:1.0", Reference("oci", "dir", "1.0")),
        ("oci-archive:a.tar:x", Reference("oci-archive", "a.tar", "x")),
        ("dockerfile:web/Dockerfile", Reference("dockerfile", "web/Dockerfile")),
        ("dockerfile:a:b", Reference("dockerfile", "a:b")),
        ("debian:12", Reference("image", "debian:12")),
        ("docker:24-dind", Reference("image", "docker:24-dind")),
        ("oci", Reference("image", "oci")),
        ("localhost:5000/acme/web:1.2", Reference("image", "localhost:5000/acme/web:1.2")),
    ],
)
def test_transports(text: str, reference: Reference, here: Path) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an image name"),
        ("docker://", "not an image name"),
        ("docker://Debian/x y", "not an image name"),
        ("docker://acme/Web", "repository names are lower case"),
        ("docker-daemon:", "not an image name"),
        ("docker-daemon:debian:a/b", "not an image name"),
        ("debian@sha256:12", "not a digest"),
        ("debian:", "not an image name"),
        ("container:", "docker ps -a"),
        ("container:../x", "docker ps -a"),
        ("oci:", "names no file"),
        ("oci::tag", "names no file"),
        ("docker-archive:", "names no file"),
        ("missing.tar", "there is no file or folder 'missing.tar'"),
        ("missing.tar.gz:web", "there is no file or folder"),
        ("./missing", "there is no file or folder"),
        ("/missing/file:1", "there is no file or folder"),
        ("a\0b", "not an image name"),
        ("x" * 5000, "more than"),
        ("/" + "x" * 5000, "there is no file"),
        ("https://example.org/a.tar", "there is no file or folder|not an image name"),
        ("\udcff", "not an image name"),
    ],
)
def test_what_means_nothing_is_one_line(text: str, message: str, here: Path) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        parse_reference(text)
    assert "\n" not in str(caught.value)


def test_a_written_reference_reads_back(here: Path) -> None:
    for text in ("docker://a/b:1", "debian:12", "oci:dir:1.0", "docker-archive:f:a/b:2", "container:web"):
        assert str(parse_reference(text)) == text


@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ConversionError:
        return
    check_machine_name(machine_name(reference))


def test_the_longest_existing_path_wins(here: Path) -> None:
    hello = (FIXTURES / "hello.tar").read_bytes()
    for name in ("a", "a:b", "a:b:c.tar"):
        (here / name).write_bytes(hello)
    assert parse_reference("docker-archive:a:b:c.tar:d:e") == Reference("docker-archive", "a:b:c.tar", "d:e")
    assert parse_reference("docker-archive:a:b:c:d") == Reference("docker-archive", "a:b", "c:d")
    assert parse_reference("docker-archive:a:c") == Reference("docker-archive", "a", "c")
    assert parse_reference("./a:b:c.tar") == Reference("docker-archive", "./a:b:c.tar")
    assert parse_reference("./a:b:x") == Reference("docker-archive", "./a:b", "x")


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("hello.tar", "docker-archive"),
        ("both.tar.zst", "docker-archive"),
        ("tricky.oci.tar.gz", "oci-archive"),
        ("tricky.oci", "oci"),
    ],
)
def test_recognised_by_content(name: str, transport: str) -> None:
    path = str(FIXTURES / name)
    assert recognise(path) == Reference(transport, path)  # type: ignore[arg-type]
    assert recognise(f"{path}:x:1") == Reference(transport, path, "x:1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, bz2.compress, zstandard.compress, lambda data: data],
    ids=["gzip", "xz", "bzip2", "zstd", "plain"],
)
def test_the_name_of_a_file_does_not_matter(compress: object, here: Path) -> None:
    assert callable(compress)
    (here / "image.jpg").write_bytes(compress((FIXTURES / "hello.tar").read_bytes()))
    assert recognise("image.jpg") == Reference("docker-archive", "image.jpg")


def test_an_unpacked_docker_archive(here: Path) -> None:
    shutil.unpack_archive(FIXTURES / "hello.tar", here / "unpacked", "tar")
    assert recognise("./unpacked") == Reference("docker-archive", "./unpacked")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (JPEG, "a JPEG picture"),
        ("Dear reader, ☃\n".encode() * 200, "a text file"),
        (bytes(10240), "a file of unknown kind"),
        (b"\x7fELF" + bytes(2000), "a program"),
        (gzip.compress(JPEG), "is not a tar"),
        (gzip.compress(tarball("manifest.json"))[:40], "damaged|cut short|corrupt|truncated|not a tar"),
        (b"\x1f\x8b" + b"no gzip at all", "damaged|cut short|corrupt|not"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "damaged|cut short|corrupt|not"),
        (tarball("etc/passwd", "usr/bin/sh"), "machinectl import-tar"),
        (gzip.compress(tarball("./etc/passwd", "./usr/bin/sh")), "machinectl import-tar"),
        (tarball("repositories", f"{HEX}/json", f"{HEX}/layer.tar"), "before 1.10"),
        (tarball("a", "b"), "without manifest.json or oci-layout"),
        ((FIXTURES / "hello.tar").read_bytes()[:20000], "cut short"),
        ((FIXTURES / "hello.tar").read_bytes()[:512] + b"x" * 1024, "wrong checksum"),
    ],
)
def test_what_is_no_image_is_named(content: bytes, message: str, here: Path) -> None:
    (here / "thing").write_bytes(content)
    with pytest.raises(ConversionError, match=message) as caught:
        recognise("./thing")
    assert "\n" not in str(caught.value)
    assert "'thing'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thing", "# syntax=x\n\nARG V=1\nFROM debian:$V\nRUN true\n"),
        ("thing", "from scratch"),
        ("web.Dockerfile", "nonsense, which its reader will name"),
    ],
)
def test_a_dockerfile_is_told_by_its_content_or_name(name: str, content: str, here: Path) -> None:
    (here / name).write_text(content)
    assert recognise(f"./{name}") == Reference("dockerfile", f"./{name}")
    with pytest.raises(ConversionError, match="is a Dockerfile"):
        recognise(f"./{name}:tag")


def test_a_folder_with_a_dockerfile(here: Path) -> None:
    (here / "debian").mkdir()
    (here / "debian/Containerfile").write_text("FROM scratch\n")
    assert recognise("debian") == Reference("dockerfile", "debian")
    assert recognise("debian:12") is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("shop", "shop"),
        ("shop/Dockerfile", "shop"),
        ("shop/web.Dockerfile", "web"),
        ("shop/Dockerfile.Web", "web"),
        ("shop/Containerfile", "shop"),
        ("shop/recipe", "recipe"),
    ],
)
def test_the_machine_of_a_dockerfile(path: str, name: str, here: Path) -> None:
    (here / "shop").mkdir()
    assert machine_name(Reference("dockerfile", path)) == name


def test_folders_that_are_no_image(here: Path) -> None:
    with pytest.raises(ConversionError, match="without oci-layout"):
        recognise(str(here))
    for name in ("etc", "usr", "bin", "var"):
        (here / "tree" / name).mkdir(parents=True)
    with pytest.raises(ConversionError, match="file system tree"):
        recognise("./tree")
    with pytest.raises(ConversionError, match="neither a file nor a folder"):
        recognise("/dev/null")


def test_a_folder_does_not_hide_an_image_of_its_name(here: Path) -> None:
    (here / "debian").mkdir()
    assert parse_reference("debian:12") == Reference("image", "debian:12")
    with pytest.raises(ConversionError, match="write docker-daemon:debian or docker://debian"):
        parse_reference("debian")
    shutil.copytree(FIXTURES / "tricky.oci", here / "tricky")
    assert parse_reference("tricky:1.0") == Reference("oci", "tricky", "1.0")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("acme/web:1", "docker.io/acme/web:1"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:latest", "docker.io/library/busybox:latest"),
        ("localhost/web", "localhost/web:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
        ("web:5000/x", None),
        (f"a/b:1@sha256:{HEX}", f"docker.io/a/b:1@sha256:{HEX}"),
        ("-a", None),
        ("a..b", None),
        ("a/", None),
        ("a//b", None),
        (HEX, None),
    ],
)
def test_image_names_in_full(short: str, full: str | None) -> None:
    if full is None and short != "web:5000/x":
        assert not is_image_name(short)
    else:
        assert str(parse_image_name(short)) == (full or "web:5000/x:latest")


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (Reference("docker", "ghcr.io/acme/Web_App:1.2"), "web-app-1.2"),
        (Reference("image", "busybox"), "busybox"),
        (Reference("image", "busybox:latest"), "busybox"),
        (Reference("docker-daemon", "localhost:5000/a/b"), "b"),
        (Reference("docker", f"debian:12@sha256:{HEX}"), "debian-12-4f53cda18c2b"),
        (Reference("docker-daemon", f"sha256:{HEX}"), "4f53cda18c2b"),
        (Reference("docker", "acme/web:v1._-x"), "web-v1-x"),
        (Reference("container", "my_web.1"), "my-web.1"),
        (Reference("docker-archive", "/srv/Café image.tar.gz"), "cafe-image"),
        (Reference("docker-archive", "all.tar", "acme/web:2"), "web-2"),
        (Reference("docker-archive", "all.tar", "web"), "web"),
        (Reference("oci", "/srv/web.oci"), "web"),
        (Reference("oci", "web/", "1.0"), "web-1.0"),
        (Reference("oci", "web", "latest"), "web"),
        (Reference("oci-archive", "web.tar", "acme/Web:1.0"), "web-1.0"),
        (Reference("oci", ".tar"), "tar"),
        (Reference("docker-archive", "disk.raw.tar"), "disk-raw"),
        (Reference("oci", ".host"), "host"),
    ],
)
def test_machine_names(reference: Reference, name: str) -> None:
    assert machine_name(reference) == name
    check_machine_name(name)


def test_the_folder_here_has_a_name(here: Path) -> None:
    (here / "Web").mkdir()
    assert machine_name(Reference("oci", str(here / "Web" / "."))) == "web"
    assert machine_name(Reference("oci", ".")) == machine_name(Reference("oci", str(here)))


def test_long_and_empty_names_stay_apart() -> None:
    long = [machine_name(Reference("image", "x" * 80 + end)) for end in ("a", "b")]
    empty = [machine_name(Reference("oci", name)) for name in ("日本", "中国")]
    assert len({*long, *empty}) == 4
    for name in long + empty:
        check_machine_name(name)


@pytest.mark.parametrize("name", ["web", "Web-1.2", "a", "1", "a--b", "x" * 64, "web.rawx"])
def test_good_machine_names(name: str) -> None:
    check_machine_name(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("", "machine-"),
        ("web_app", "web-app"),
        ("-web", "web"),
        ("web.", "web"),
        (".host", "host"),
        ("a..b", "a-b"),
        ("a.-b", "a-b"),
        ("../etc", "etc"),
        ("a/b", "a-b"),
        ("a\n", "a"),
        ("Grün", "grun"),
        ("x" * 65, "x" * 55),
        ("web.raw", "web-raw"),
        ("web.v", "web-v"),
        ("web.nspawn", "web-nspawn"),
    ],
)
def test_bad_machine_names_come_with_a_good_one(name: str, suggestion: str) -> None:
    with pytest.raises(ConversionError, match=f"try '{re.escape(suggestion)}") as caught:
        check_machine_name(name)
    check_machine_name(str(caught.value).rpartition("try '")[2][:-1])
