"""Translation at places that are no Dockerfile, no context or no place to write: one line, and nothing is left."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.dockerfile.translate import Wanted, translate
from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, Platform, this_platform
from tests.hostile import snapshot
from tests.shell_code import code_of

SECRET = "SECRET-77ab"


def any_image(name: str, platform: Platform | None, spool: Path) -> Image:
    """Whatever image a Dockerfile names is there."""
    return Image(f"docker://{name}", None, platform or this_platform(), ImageConfig(cmd=("sh",)), ())


def refusal(wanted: Wanted) -> str:
    """The line that says why not; the output directory must not be there then."""
    before = wanted.output.exists()
    with pytest.raises(ConversionError) as raised:
        translate(wanted, any_image)
    line = str(raised.value)
    assert line and line.isprintable()
    assert wanted.output.exists() == before
    assert [
        path for path in wanted.output.parent.iterdir() if path.name.startswith(f".{wanted.output.name}")
    ] == []
    return line


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


_NO_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "fifo": os.mkfifo,
    "directory": lambda path: path.mkdir(),
    "socket": _socket,
    "link-to-itself": lambda path: path.symlink_to(path.name),
    "link-to-nothing": lambda path: path.symlink_to("nowhere"),
    "link-to-zero": lambda path: path.symlink_to("/dev/zero"),
    "link-to-memory": lambda path: path.symlink_to("/proc/self/mem"),
    "link-to-directory": lambda path: path.symlink_to("/etc"),
    "empty": lambda path: path.touch(),
    "sparse-gigabytes": _sparse,
    "binary": lambda path: path.write_bytes(os.urandom(100_000)),
}


@pytest.mark.parametrize("kind", _NO_FILES)
def test_what_is_no_dockerfile(tmp_path: Path, kind: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    _NO_FILES[kind](context / "Dockerfile")
    refusal(Wanted(context, tmp_path / "output", "x"))
    refusal(Wanted(context / "Dockerfile", tmp_path / "output", "x"))
    refusal(Wanted(context, tmp_path / "output", "x", file=context / "Dockerfile"))


@pytest.mark.parametrize(
    "device", ["/dev/zero", "/dev/null", "/proc/self/mem", "/proc/self/fd", "/dev/stdin/x", "\0"]
)
def test_devices(tmp_path: Path, device: str) -> None:
    refusal(Wanted(Path(device), tmp_path / "output", "x"))


def test_a_dockerfile_that_is_a_link(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "real").write_text("FROM scratch\nCOPY real /\n")
    (context / "Dockerfile").symlink_to("real")
    translate(Wanted(context, tmp_path / "output", "x"), any_image)
    assert (tmp_path / "output/provision.sh").exists()


def test_a_context_that_leads_out_leaves_nothing_behind(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    before = snapshot(outside)
    context = tmp_path / "context"
    context.mkdir()
    (context / "link").symlink_to("../outside")
    (context / "file").symlink_to("../outside/secret")
    for source in (
        "../outside/secret",
        "link/secret",
        "file",
        f"{outside}/secret",
        "link/*",
        "./link/./secret",
    ):
        bind = f"RUN --mount=type=bind,source={source},target=/m cat /m"
        for line in (f"COPY {source} /x", f"ADD {source} /x", bind):
            (context / "Dockerfile").write_text(f"FROM debian:bookworm\n{line}\n")
            wanted = Wanted(context, tmp_path / "output", "x", force=True)
            try:
                translate(wanted, any_image)
            except ConversionError as error:
                assert SECRET not in str(error)
            written = [path for path in (tmp_path / "output").rglob("*") if not path.is_symlink()]
            found = [path for path in written if path.is_file() and SECRET.encode() in path.read_bytes()]
            assert found == []
    assert snapshot(outside) == before


def test_mounts_that_lead_out_stay_in_the_tree(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for target in ("../../..", "/../../../etc", "..", "/", ".", "/proc/1/root"):
        for kind in ("cache", "tmpfs", "bind", "secret,id=s", "ssh"):
            (context / "Dockerfile").write_text(
                f"FROM debian:bookworm\nRUN --mount=type={kind},target={target} true\n"
            )
            wanted = Wanted(context, tmp_path / "output", "x", force=True)
            try:
                translate(wanted, any_image)
            except ConversionError as error:
                assert str(error).isprintable()


@pytest.mark.parametrize(
    "name", ["a/b", "con text", "line\nbreak", "\udcff", "'$(>canary)'", "-rf", "*", "%s"]
)
def test_places_with_odd_names(tmp_path: Path, name: str) -> None:
    """The name of a context or an output directory is no more than a name."""
    context = tmp_path / "here" / name
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM debian:bookworm\nCOPY Dockerfile /\nRUN true\n")
    output = tmp_path / "outputs" / context.name
    translate(Wanted(context, output, "x"), any_image)
    script = (output / "provision.sh").read_text("utf-8", "surrogateescape")
    assert ">canary" not in code_of(script)


def test_an_output_that_is_in_the_way(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    output = tmp_path / "output"
    output.symlink_to(outside)
    refusal(Wanted(context, output, "x"))
    refusal(Wanted(context, output, "x", force=True))
    refusal(Wanted(context, outside, "x", force=True))
    refusal(Wanted(context, outside / "kept", "x", force=True))
    with pytest.raises(ConversionError):
        translate(Wanted(context, outside / "kept/below", "x"), any_image)
    assert (outside / "kept").read_text() == "kept"


def test_an_output_in_the_context_is_not_copied_into_itself(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /all/\n")
    for _ in range(2):
        translate(Wanted(tmp_path, tmp_path / "out", "x", force=True), any_image)
    depth = max(len(path.relative_to(tmp_path).parts) for path in tmp_path.rglob("*"))
    assert depth < 40
