"""A Dockerfile translated: what is in the output directory, and when there is none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from converter.dockerfile.model import DockerfileError
from converter.dockerfile.output import MARKER
from converter.dockerfile.translate import Translated, Wanted, translate
from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, Platform, this_platform
from tests import lab

_TWO_STAGES = """\
FROM debian:bookworm-slim AS build
COPY src/ /src/
RUN --mount=type=bind,target=/ctx true
FROM debian:bookworm-slim
COPY --chown=app start data.tar.gz /usr/local/bin/
ADD data.tar.gz /data/
COPY <<EOF /etc/app.conf
a=b
EOF
COPY --from=build /out /usr/local/bin/tool
COPY --from=docker.io/library/alpine:3.20 /etc/alpine-release /
USER app
HEALTHCHECK CMD true
CMD ["start", "--uid=5"]
"""


def _no_image(source: str, platform: Platform | None, spool: Path) -> Image:
    raise ConversionError(f"there is no image {source} here")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    (path / "src").mkdir(parents=True)
    (path / "src/a").write_text("a")
    (path / "src/secret").write_text("hush")
    (path / ".dockerignore").write_text("**/secret\n")
    (path / "start").write_text("#!/bin/sh\n")
    (path / "start").chmod(0o755)
    subprocess.run(["tar", "-C", path, "-czf", path / "data.tar.gz", "src"], check=True)
    (path / "Dockerfile").write_text(_TWO_STAGES)
    return path


def _translate(context: Path, output: Path, text: str | None = None, **more: Any) -> Translated:
    if text is not None:
        (context / "Dockerfile").write_text(text, "utf-8", "surrogateescape")
    return translate(Wanted(context, output, **{"name": "web", **more}), _no_image)


def _names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_is_in_it(context: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    translated = _translate(context, output, name="web")
    assert sorted(path.name for path in output.iterdir()) == [
        MARKER, "bootstrap.sh", "build.sh", "files", "host", "mkosi", "notes.txt", "provision.sh", "stages",
        "templates", "tree", "web.nspawn",
    ]  # fmt: skip
    image = next(path for path in (output / "stages").iterdir() if path.name.startswith("image="))
    assert _names(image) == {"bootstrap.sh"}
    assert _names(output / "stages/build") == {
        "bootstrap.sh", "provision.sh", "files/1/0/a", "files/2.1/0/.dockerignore", "files/2.1/0/Dockerfile",
        "files/2.1/0/data.tar.gz", "files/2.1/0/src/a", "files/2.1/0/start",
    }  # fmt: skip
    assert (output / "files/1/0/start").stat().st_mode & 0o777 == 0o755
    assert (output / "files/3/0/EOF").read_text() == "a=b\n"
    provision = (output / "provision.sh").read_text()
    assert "own 'app' ''" in provision
    assert "unpack '/data/' -xf \"$files\"/2/0.tar" in provision
    assert "copy_from \"$stages\"/build/root '' '' '/usr/local/bin/tool' '/out'" in provision
    assert translated.name == "web" and translated.output == str(output)
    assert "web.nspawn" in translated.files and MARKER not in translated.files


def test_settings_and_notes_are_those_of_an_image(context: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    text = "FROM debian:bookworm-slim\nENV API_TOKEN=x\nRUN true\nVOLUME /v\nSTOPSIGNAL INT\nLABEL a=b\nCMD sleep 9\n"
    translated = _translate(context, output, text, name="web")
    settings = (output / "web.nspawn").read_text()
    assert "KillSignal=SIGINT" in settings and "Environment=API_TOKEN=x" in settings
    assert "launch --groups=0 --gid=0 --uid=0 --clean -- /bin/sh -c " in settings
    assert (output / "web.nspawn").stat().st_mode & 0o777 == 0o600
    notes = (output / "notes.txt").read_text().splitlines()
    assert len(notes) == len(translated.notes)
    assert [line.split()[0] for line in notes] == sorted(
        (note.kind for note in translated.notes), key=["dropped", "adapted", "exact"].index
    )
    assert any("STOPSIGNAL INT: KillSignal=SIGINT" in line for line in notes)
    record = json.loads((output / "host/var/lib/docker2nspawn/machines/web.json").read_text())
    assert record["config"]["labels"] == {"a": "b"}
    assert f"private: {record['address']} behind the host" in "\n".join(notes)
    assert any(line.startswith("adapted FROM debian:bookworm-slim") for line in notes)


@pytest.mark.parametrize(
    ("user", "assumed"),
    [("app", "--groups=1000 --gid=1000 --uid=1000"), ("7:8", "--groups=8 --gid=8 --uid=7"),
     ("app:www", "--groups=1000 --gid=1000 --uid=1000"), ("", "--groups=0 --gid=0 --uid=0")],
)  # fmt: skip
def test_the_account_is_looked_up_in_the_tree(context: Path, tmp_path: Path, user: str, assumed: str) -> None:
    """build.sh --settings does what the end of a build does; what it writes comes from that tree."""
    output, tree = tmp_path / "out", tmp_path / "tree"
    line = f"USER {user}\n" if user else ""
    _translate(
        context, output, f'FROM debian:12\n{line}HEALTHCHECK CMD true\nCMD ["x", "--uid=5"]\n', name="web"
    )
    before = (output / "web.nspawn").read_text()
    assert assumed in before and "2147480" not in before
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/passwd").write_text("root:x:0:0::/roots:\napp:x:71:72::/srv/app:\nseven:x:7:9::/seven:\n")
    (tree / "etc/group").write_text("www:x:33:\nmore:x:73:app\nadm:x:4:root\n")
    for shell in _SHELLS:
        subprocess.run([*shell, output / "build.sh", "--settings", tree], check=True)
        uid, gid, groups, home = {
            "app": ("71", "72", "72,73", "/srv/app"),
            "app:www": ("71", "33", "33", "/srv/app"),
            "7:8": ("7", "8", "8", "/seven"),
            "": ("0", "0", "0,4", "/roots"),
        }[user]
        for path in ("web.nspawn", "host/var/lib/docker2nspawn/machines/web.health"):
            after = (output / path).read_text()
            assert f"--groups={groups}" in after and f"--gid={gid}" in after and f"--uid={uid}" in after
            assert f"HOME={home}" in after
        assert "x --uid=5" in (output / "web.nspawn").read_text()
    assert not list(output.rglob("*.new"))


def test_a_user_who_is_not_there_is_told(context: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _translate(context, output, "FROM debian:12\nUSER nobody-here\nCMD x\n")
    (tmp_path / "tree").mkdir()
    done = subprocess.run(
        ["sh", output / "build.sh", "--settings", tmp_path / "tree"], capture_output=True, check=False
    )
    assert done.returncode == 1 and b"USER nobody-here is not in /etc/passwd" in done.stderr


_SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "ash"]) if shutil.which(shell[0])]


def test_the_scripts_are_good_shell(context: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _translate(context, output)
    scripts = sorted(output.rglob("*.sh"))
    assert len(scripts) == 6
    for path in scripts:
        assert os.access(path, os.X_OK)
        for shell in _SHELLS:
            subprocess.run([*shell, "-n", path], check=True)
    helped = subprocess.run(["sh", output / "build.sh", "--help"], capture_output=True, text=True, check=True)
    assert helped.stdout.startswith("Made by docker2nspawn from ") and "--install" in helped.stdout
    if shutil.which("shellcheck") is None and not lab.switched_on():
        pytest.skip("there is no shellcheck here: install it to check the scripts")
    checked = subprocess.run(
        ["shellcheck", "-S", "warning", *scripts], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_only_our_own_output_is_replaced(context: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    _translate(context, output)  # an empty directory is as good as none
    (output / "secrets").mkdir()
    (output / "secrets/token").write_text("hush")
    with pytest.raises(ConversionError, match="--force replaces it"):
        _translate(context, output)
    _translate(context, output, "FROM debian:12\n", force=True)
    assert (output / "secrets/token").read_text() == "hush"
    assert not (output / "files").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    link = tmp_path / "link"
    link.symlink_to(output)
    for path in (other, other / "precious", link):
        with pytest.raises(ConversionError, match="another"):
            _translate(context, path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["context", "link", "other", "out"]


@pytest.mark.parametrize("name", ["out", "o[u]*t\\\\", "!out"])
def test_the_output_is_no_part_of_the_context(context: Path, tmp_path: Path, name: str) -> None:
    (context / "deep").mkdir()
    (context / "out2").touch()
    for output in (context / name, context / "deep" / name):
        for _ in range(2):
            _translate(context, output, "FROM debian:12\nCOPY . /\n", force=True)
        assert _names(output / "files/1/0") == {
            ".dockerignore", "Dockerfile", "data.tar.gz", "out2", "src/a", "start",
        }  # fmt: skip
        shutil.rmtree(output)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM debian:12\nCOPY nothing /\n", r"Dockerfile:2:.*nothing"),
        ("FROM debian:12\nCOPY src/secret /\n", r"Dockerfile:2:.*ignore"),
        ("FROM debian:12\nCOPY ../../etc/shadow /\n", r"Dockerfile:2:"),
        ("FROM debian:12\nRUNN true\n", r"Dockerfile:2:.*RUN"),
        ("FROM nowhere.example/x:1\n", r"there is no image nowhere.example/x:1 here; .*--base nowhere.example/x"),
    ],
)  # fmt: skip
def test_errors_leave_nothing(context: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        _translate(context, tmp_path / "out", text)
    assert "\n" not in str(caught.value)
    assert text.startswith("FROM nowhere") or isinstance(caught.value, DockerfileError)
    assert [path.name for path in tmp_path.iterdir()] == ["context"]


def test_strict_refuses_losses(context: Path, tmp_path: Path) -> None:
    text = 'FROM scratch\nCOPY start /\nCMD ["/start"]\n'
    with pytest.raises(ConversionError, match="--strict: would be dropped"):
        _translate(context, tmp_path / "out", text, strict=True)
    assert not (tmp_path / "out").exists()
    _translate(context, tmp_path / "out", text)
    assert not (tmp_path / "out/mkosi").exists()


def test_an_image_is_taken_from_where_base_says(context: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def open_image(source: str, platform: Platform | None, spool: Path) -> Image:
        asked.append(source)
        config = ImageConfig(env=("FROM_IMAGE=yes",), user="app")
        return Image(source, None, platform or this_platform(), config, ())

    (context / "Dockerfile").write_text("FROM debian:12\nRUN true\n")
    translate(Wanted(context, tmp_path / "out", "m", bases=("debian:12=oci:/images/mine",)), open_image)
    assert asked == ["oci:/images/mine"]
    assert "FROM_IMAGE='yes'" in (tmp_path / "out/provision.sh").read_text()
    assert "oci:/images/mine" in (tmp_path / "out/bootstrap.sh").read_text()
    assert 'tree "$here" outside' in (tmp_path / "out/build.sh").read_text()


def test_a_target_leaves_out_what_it_does_not_need(context: Path, tmp_path: Path) -> None:
    text = "FROM debian:12 AS a\nFROM unknown.example/b AS b\nFROM a AS c\nRUN true\n"
    _translate(
        context, tmp_path / "out", text, target="c", build_args=("X=y",), platform=Platform("linux", "arm64")
    )
    assert [path.name for path in (tmp_path / "out/stages").iterdir()] == ["a"]
    bootstrap = (tmp_path / "out/bootstrap.sh").read_text()
    assert '"$here"/stages/a/root' in bootstrap


def test_hostile_text_is_only_shown(context: Path, tmp_path: Path) -> None:
    """In every field; run for what it defines, nothing of it runs."""
    bad = "$(touch bad)`touch bad`"
    text = (
        f'FROM debian:12\nENV A="{bad}\\u202e" \'B\'="x;touch bad"\nLABEL "{bad}"="{bad}"\n'
        f'WORKDIR "/{bad}"\nUSER "{bad}"\nVOLUME ["/{bad}"]\nEXPOSE 80\nRUN ["x", "{bad}", "\'; touch bad; \'"]\n'
        f'CMD ["{bad}", "\'", "\\"; touch bad; \\""]\n'
    )
    _translate(context, tmp_path / "out", text)
    for path in (tmp_path / "out/provision.sh", tmp_path / "out/build.sh"):
        for shell in _SHELLS:
            subprocess.run([*shell, "-n", path], check=True)
            subprocess.run(
                [*shell, path, "--help"],
                check=False,
                capture_output=True,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
            )
    subprocess.run(
        ["sh", tmp_path / "out/provision.sh", "--list"], check=True, capture_output=True, cwd=tmp_path
    )
    assert not (tmp_path / "bad").exists()


_RUN = """
import os, signal, sys
from pathlib import Path
from converter import interrupt
from converter.dockerfile import translate
signal.signal(signal.SIGTERM, interrupt.on_signal)
written = translate._write_bytes
left = [int(sys.argv[3])]
def counted(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), int(sys.argv[4]))
    written(*arguments)
translate._write_bytes = counted
translate.translate(translate.Wanted(Path(sys.argv[1]), Path(sys.argv[2]), "web", force=True), None)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_what_was_there(context: Path, tmp_path: Path, number: int) -> None:
    """Stopped before one of its files is written: never is half of a translation taken for one."""
    output = tmp_path / "out"
    _translate(context, output, "FROM debian:12\nRUN old\n")
    old = (output / "provision.sh").read_bytes()
    (context / "Dockerfile").write_text(_TWO_STAGES)
    root = Path(__file__).parent.parent
    for at in (2, 9):
        command = [sys.executable, "-c", _RUN, str(context), str(output), str(at), str(int(number))]
        done = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(root)}
        )
        assert done.returncode != 0
        assert (output / "provision.sh").read_bytes() == old
        assert (output / MARKER).is_file()
        left = sorted(path.name for path in tmp_path.iterdir() if path.name not in {"context", "out"})
        assert left == [] or number == signal.SIGKILL
        assert all(name.startswith(".out.docker2nspawn-") for name in left)
        assert not any((tmp_path / name / MARKER).exists() for name in left)
    for name in left:
        os.utime(tmp_path / name, (0, 0))  # not just made
    _translate(context, output, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"context", "out"}


def test_the_marker_says_what_it_is(context: Path, tmp_path: Path) -> None:
    _translate(context, tmp_path / "out", name="m")
    assert json.loads((tmp_path / "out" / MARKER).read_text())["name"] == "m"
