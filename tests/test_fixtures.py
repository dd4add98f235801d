"""The committed images are exactly what fixtures/build makes, so that nobody has to trust them."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"
MADE = ("hello.tar", "both.tar.zst", "tricky.oci.tar.gz", "tricky.oci", "multi.oci")


def _contents(folder: Path) -> dict[str, bytes]:
    tops = [folder / name for name in MADE]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_fresh_build_equals_the_committed_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FIXTURES / "build", "--output", tmp_path], check=True)
    fresh, committed = _contents(tmp_path), _contents(FIXTURES)
    assert {name.partition("/")[0] for name in committed} == set(MADE)
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(MADE)


def test_they_are_small() -> None:
    assert sum(len(data) for data in _contents(FIXTURES).values()) < 200_000


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_hello_program_is_static_and_for_its_processor(architecture: str) -> None:
    program = (FIXTURES / "sources" / f"hello-{architecture}").read_bytes()
    machine = {"amd64": 62, "arm64": 183}[architecture]  # EM_X86_64, EM_AARCH64
    assert program[:5] == b"\x7fELF\x02"
    assert int.from_bytes(program[18:20], "little") == machine
    assert b"/ld-linux" not in program


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for amd64")
def test_hello_prints_one_line_for_each_value() -> None:
    arguments = ["two words", "a\tb\nc", "back\\slash", "Grüße"]
    program = FIXTURES / "sources" / "hello-amd64"
    out = subprocess.run([program, *arguments], env={"A": "1"}, cwd="/", capture_output=True, check=True)
    lines = out.stdout.decode().splitlines()
    assert lines[2:7] == ["argv=two words", "argv=a\\tb\\nc", "argv=back\\\\slash", "argv=Grüße", "env=A=1"]
    assert lines[-1] == "cwd=/"


@pytest.mark.lab
@pytest.mark.parametrize(
    "reference",
    [
        "docker-archive:hello.tar",
        "docker-archive:both.tar.zst:tricky:1.0",
        "oci:tricky.oci:1.0",
        "oci-archive:tricky.oci.tar.gz:1.0",
        "oci:multi.oci:latest",
    ],
)
def test_skopeo_reads_them(reference: str, tmp_path: Path) -> None:
    command = ["skopeo", "--override-arch=amd64", "copy", "--insecure-policy", "--quiet", reference]
    subprocess.run([*command, f"dir:{tmp_path}/copy"], cwd=FIXTURES, check=True)
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    assert len(manifest["layers"]) == {"hello": 3, "multi": 2}.get(reference.split(":")[1].split(".")[0], 4)


@pytest.mark.lab
def test_umoci_unpacks_the_tricky_one(tmp_path: Path) -> None:
    """By way of skopeo: umoci before 0.5 reads no zstd."""
    to_gzip = [
        "skopeo",
        "copy",
        "--insecure-policy",
        "--quiet",
        "--dest-compress",
        "--dest-compress-format=gzip",
    ]
    subprocess.run(
        [*to_gzip, "docker-archive:both.tar.zst:tricky:1.0", f"oci:{tmp_path}/gzip:1.0"],
        cwd=FIXTURES,
        check=True,
    )
    subprocess.run(
        ["umoci", "raw", "unpack", "--rootless", "--image", f"{tmp_path}/gzip:1.0", f"{tmp_path}/tree"],
        check=True,
    )
    tree = tmp_path / "tree"
    assert (tree / "srv/app/message.txt").read_text() == "second\n"
    assert sorted(path.name for path in (tree / "srv/cache").iterdir()) == ["c"]
    assert not (tree / "usr/bin/hello-again").exists()
    assert (tree / "odd/Grüße ☃.txt").read_text() == "UTF-8\n"
