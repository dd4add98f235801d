"""The commands that take a Dockerfile, from outside: what they print, what they refuse, what they leave."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"
_CLI = (sys.executable, "-m", "converter.cli")


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_CLI, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    context = tmp_path / "shop"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM debian:12 AS built\nRUN make\nFROM debian:12-slim\nCOPY --from=built /x /srv/\nEXPOSE 80\n"
        'USER app\nENV API_TOKEN=hush\nCMD ["/srv/x", "--port", "80"]\n'
    )
    return context


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "./shop/nothing"), "there is no file or folder"),
        (("convert", "dockerfile:shop/nothing"), "cannot read the Dockerfile 'shop/nothing': No such file"),
        (("plan", "shop", "--target", "buil"), "Dockerfile:.*did you mean built"),
        (("convert", "shop", "--file", "other"), "cannot read the Dockerfile 'other'"),
        (("convert", "shop", "--base", "debian:12"), "--base 'debian:12': write NAME=SOURCE"),
        (("convert", "shop", "--secret", "src=x"), "--secret 'src=x': write id=ID,src=FILE"),
        (("convert", "shop", "--ssh", "default=/nowhere"), "give an agent's socket"),
        (("convert", "shop", "--build-arg", "=1"), "has no name; write NAME=VALUE"),
        (("convert", FIXTURES / "hello.tar", "--target", "x"), "is no Dockerfile"),
        (("dockerfile", "shop/nothing", "-o", "out"), "cannot read the Dockerfile"),
        (("dockerfile", ".", "-o", "out"), "there is no Dockerfile in '.'"),
        (("plan", "shop", "--strict", "--network", "none", "-p", "8080:80"), "--strict: would be dropped"),
    ],
)
def test_one_line_and_nothing_written(
    arguments: tuple[str, ...], said: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.parent)
    root = () if arguments[0] == "dockerfile" else ("--root", "root")
    done = _run(*arguments, *root)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("docker2nspawn: ") and done.stderr.count("\n") == 1
    assert re.search(said, done.stderr), done.stderr
    assert {path.name for path in Path().iterdir()} == {"shop"}


def test_a_plan_builds_nothing(shop: Path) -> None:
    before = sorted(shop.parent.rglob("*"))
    done = _run("plan", shop, "--json", "--name", "web")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["name"], plan["settings_path"]) == ("web", "/var/lib/machines/web.nspawn")
    assert "-- /srv/x --port 80\n" in plan["settings"]
    assert any("nothing was built" in note["text"] for note in plan["notes"])
    assert sorted(shop.parent.rglob("*")) == before


def test_a_translation(shop: Path, tmp_path: Path) -> None:
    done = _run("dockerfile", shop, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    translated = json.loads(done.stdout)
    assert {
        "provision.sh",
        "bootstrap.sh",
        "build.sh",
        "stages/",
        "mkosi/",
        "shop.nspawn",
        "notes.txt",
    } <= set(translated["files"])
    assert (tmp_path / "out/shop.nspawn").stat().st_mode & 0o777 == 0o600  # a secret is in it
    again = _run("dockerfile", shop, "--output", tmp_path / "out")
    assert again.returncode == 1 and "--force replaces it" in again.stderr


@pytest.mark.lab
def test_a_failed_build_leaves_the_old_machine(shop: Path, tmp_path: Path) -> None:
    (shop / "Dockerfile").write_text('FROM scratch\nCOPY Dockerfile /\nCMD ["/x"]\n')
    arguments = ("convert", f"dockerfile:{shop}", "--root", tmp_path / "root")
    assert _run(*arguments).returncode == 0
    machines = tmp_path / "root/var/lib/machines"
    before = {path: path.lstat().st_ino for path in machines.rglob("*")}
    (shop / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\nRUN no-such-program\n")
    done = _run(*arguments, "--force")
    assert done.returncode == 1
    assert f"{shop}/Dockerfile:3:1: RUN has failed" in done.stderr
    assert {path: path.lstat().st_ino for path in machines.rglob("*")} == before
