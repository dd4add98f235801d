"""A command in every field of a Dockerfile stays data in the scripts that are made of it, and is never run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.dockerfile.translate import Wanted, translate
from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, Platform, this_platform
from fuzz.dockerfile_checks import PATH, recipe_or_error
from tests.hostile_dockerfiles import CANARY, dockerfiles
from tests.made_contexts import make_context
from tests.shell_code import code_of

_COMMAND = f">{CANARY}"

# SHELL's last argument is a command, which RUN's shell carries out.
_MAY_FAIL = (
    "user-",
    "shell-",
    "mount-source-",
    "mount-target-long",
)  # no such user, program or file; too long a name
# BuildKit's parser ends a flag at the byte 0x85: the command is then part of RUN's.
_PART_OF_RUN = {f"{field}-unicode-lines" for field in ("mount-target", "mount-secret", "mount-secret-env")}


def any_image(name: str, platform: Platform | None, spool: Path) -> Image:
    """Whatever image a Dockerfile names is there."""
    return Image(
        f"docker://{name}", None, platform or this_platform(), ImageConfig(env=(PATH,), cmd=("sh",)), ()
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What became of every hostile Dockerfile that is not refused."""
    top = tmp_path_factory.mktemp("hostile")
    found = {}
    for number, (name, data) in enumerate(dockerfiles()):
        context = top / str(number) / "context"
        (context / "dir").mkdir(parents=True)
        (context / "dir/file").write_text("file\n")
        (context / "plain").write_text("plain\n")
        recipe = recipe_or_error(data)
        if isinstance(recipe, str):
            continue
        with contextlib.suppress(OSError, ValueError):  # no such file can be: COPY will not find it
            make_context(recipe, context)
        (context / "Dockerfile").write_bytes(data)
        wanted = Wanted(context, top / str(number) / "output", "hostile")
        try:
            translate(wanted, any_image)
        except ConversionError as error:
            assert str(error).isprintable()
            continue
        found[name] = wanted.output
    return found


def scripts(outputs: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    for name, output in outputs.items():
        for path in output.rglob("*"):
            if path.suffix in {".sh", ".chroot"} and not {"files", "mkosi.extra", "tree"} & set(path.parts):
                yield name, path


def test_most_are_translated(outputs: dict[str, Path]) -> None:
    assert len(outputs) > 400


def test_no_command_is_code(outputs: dict[str, Path]) -> None:
    """In every script, it stands in single quotes, comments and quoted here-documents only."""
    count = 0
    for name, path in scripts(outputs):
        text = path.read_text("utf-8", "surrogateescape")
        count += _COMMAND in text
        code = code_of(text)
        assert _COMMAND not in code, (name, path)
        assert "\r" not in code, (name, path)
    assert count > 800


def test_every_script_is_parsed(outputs: dict[str, Path]) -> None:
    parsed = subprocess.run(
        ["/bin/sh", "-c", 'for script; do sh -n "$script" || echo "$script"; done', "sh"]
        + [str(path) for _, path in scripts(outputs)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert parsed.stdout + parsed.stderr == ""


def test_every_settings_file_has_its_own_lines_only(outputs: dict[str, Path]) -> None:
    """No value begins a line of its own in what systemd reads."""
    for name, output in outputs.items():
        for path in (
            *output.glob("*.nspawn"),
            *(output / "host").rglob("*.conf"),
            *(output / "host").rglob("*.service"),
        ):
            for line in path.read_text("utf-8", "surrogateescape").split("\n"):
                assert not line.lstrip().startswith(_COMMAND), (name, path)
                assert re.match(r"^$|^\[[A-Za-z]+\]$|^[#;]|^[A-Za-z][A-Za-z0-9_-]*=|^ ", line), (
                    name,
                    path,
                    line,
                )


@pytest.mark.lab
def test_no_command_is_run(outputs: dict[str, Path], tmp_path: Path) -> None:
    """Every provision.sh, run for real as root in a tree of busybox; so is what it makes."""
    root = tmp_path / "root"
    for directory in ("bin", "dev", "etc", "mnt", "proc", "root", "tmp", "usr/bin", "sbin"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    for number, output in enumerate(outputs.values()):
        shutil.copytree(output, root / "mnt" / str(number), symlinks=True)
    kept = "|".join(f"/{path.name}" for path in root.iterdir())
    # The canary is looked for after each, and everything new taken away.
    loop = f"""
        for one in /mnt/*; do
            /bin/sh $one/provision.sh >/dev/null 2>$one/log && : >$one/done
            [ ! -e {CANARY} ] || echo $one
            for path in /* /.[!.]*; do
                case $path in {kept}) ;; *) rm -rf "$path" ;; esac
            done
        done"""
    ran = subprocess.run(
        ["unshare", "--mount", "--propagation=private", "chroot", root, "/bin/sh", "-c", loop],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    names = list(outputs)
    run = {names[int(place.rpartition("/")[2])] for place in ran.stdout.split()}
    assert {
        name for name in run if not name.startswith("shell-option-") and name not in _PART_OF_RUN
    } == set()
    assert ran.stderr == ""
    assert not Path(CANARY).exists()
    failed = {name for number, name in enumerate(names) if not (root / "mnt" / str(number) / "done").exists()}
    assert {name for name in failed if not name.startswith(_MAY_FAIL)} == set()
