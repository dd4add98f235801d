"""The mkosi tree: what mkosi does itself, what is left to provision.sh, and that both hold no foreign commands."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from converter.dockerfile import mkosi
from converter.dockerfile.bases import find_base
from converter.dockerfile.model import Copy, ImageSource, Recipe, StageSource
from converter.machine.model import TreeChange
from tests import steps
from tests.steps import STATE

_PLAIN = (
    "apt-get update && apt-get install -y --no-install-recommends curl g++=12 && rm -rf /var/lib/apt/lists/*"
)


def _write(recipe: Recipe, output: Path, **options: str | None) -> str:
    source = recipe.target.base
    base = find_base(source) if isinstance(source, ImageSource) else None
    notes = mkosi.write(recipe, base, output, name="machine", put=_put, nspawn=options.get("nspawn"))
    return "\n".join(note.text for note in notes)


def _put(step: Copy, tree: Path) -> None:
    """What BuildKit would do for one plain file that is called as its source."""
    path = tree / step.destination.lstrip("/")
    if step.destination.endswith("/"):
        path /= step.sources[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(step.sources[0])


def _settings(output: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((output / "mkosi/mkosi.conf").read_text())
    return {key: value.strip() for section in parser.sections() for key, value in parser.items(section)}


def _script(output: Path) -> str:
    path = output / "mkosi/mkosi.postinst.chroot"
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        done = subprocess.run(
            [shellcheck, "-S", "warning", path], capture_output=True, text=True, check=False
        )
        assert done.stdout == ""
    return path.read_text()


def test_an_installation_and_the_rest(tmp_path: Path) -> None:
    stage = steps.stage("debian:bookworm-slim", steps.run(_PLAIN), steps.run("make"))
    notes = _write(steps.recipe(stage), tmp_path)
    settings = _settings(tmp_path)
    assert settings["Distribution"] == "debian"
    assert settings["Release"] == "bookworm"
    assert settings["Architecture"] == "x86-64"
    assert settings["Format"] == "directory"
    assert settings["Output"] == "machine"
    assert settings["Packages"].split() == ["apt", "?priority(required)", "usr-is-merged", "curl", "g++=12"]
    assert settings["WithRecommends"] == "no"
    script = _script(tmp_path)
    assert script.endswith("\n/work/src/provision.sh --from 2\n")
    assert "apt-mark manual curl g++ >/dev/null\n" in script
    assert "path-exclude /usr/share/doc/*\n" in script
    assert "curl g++=12" in notes
    sources = (tmp_path / "mkosi/mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources").read_text()
    assert "Suites: bookworm bookworm-updates\n" in sources and "Suites: bookworm-security\n" in sources
    assert "debug" not in sources


def test_in_doubt_everything_is_left_to_the_script(tmp_path: Path) -> None:
    stage = steps.stage("debian:bookworm", steps.run(_PLAIN + " && make"), steps.copy("x", "/app/"))
    _write(steps.recipe(stage), tmp_path)
    assert _settings(tmp_path)["Packages"].split() == ["apt", "?priority(required)", "usr-is-merged"]
    assert _script(tmp_path).endswith("\n/work/src/provision.sh --from 1\n")
    assert "apt-mark manual" not in _script(tmp_path)
    assert not (tmp_path / "mkosi/mkosi.extra").exists()


def test_what_comes_before_all_else_is_in_mkosi_extra(tmp_path: Path) -> None:
    stage = steps.stage(
        "debian:bookworm",
        steps.workdir("/app/deep"),
        steps.run(_PLAIN),
        steps.copy("start", "/usr/local/bin/"),
        steps.copy("data", "/opt/thing/data"),
        steps.setting("LABEL a=b"),
        steps.copy("passwd", "/etc/"),
        steps.copy("later", "/app/"),
    )
    notes = _write(steps.recipe(stage), tmp_path)
    extra = tmp_path / "mkosi/mkosi.extra"
    assert sorted(str(path.relative_to(extra)) for path in extra.rglob("*") if path.is_file()) == [
        "opt/thing/data",
        "usr/local/bin/start",
    ]
    assert (extra / "app/deep").is_dir()
    assert _script(tmp_path).endswith("\n/work/src/provision.sh --from 6\n")
    assert "step 1, 3, 4" in notes


@pytest.mark.parametrize(
    "step",
    [
        steps.copy("x", "/app/", chown="app"),
        replace(steps.copy("x", "/app/"), origin=ImageSource("node:20")),
        replace(steps.copy("x", "/app/"), add=True),
        replace(steps.copy("x", "/app/"), link=True),
        steps.copy("x", "/etc/x"),
        steps.copy("x", "/usr/local/../../etc/x"),
        steps.workdir("/home/app"),
        steps.workdir("/app", replace(STATE, user="app")),
    ],
)
def test_what_has_to_stay_in_its_place(step: Copy, tmp_path: Path) -> None:
    _write(steps.recipe(steps.stage("debian:bookworm", step, steps.run(_PLAIN))), tmp_path)
    assert not (tmp_path / "mkosi/mkosi.extra").exists()
    assert _script(tmp_path).endswith("\n/work/src/provision.sh --from 1\n")
    assert "curl" not in _settings(tmp_path)["Packages"]


def test_a_file_that_mkosi_would_not_copy_as_it_is(tmp_path: Path) -> None:
    def put_twice(step: Copy, tree: Path) -> None:
        _put(step, tree)
        (tree / "app/second").hardlink_to(tree / "app/x")

    stage = steps.stage("debian:bookworm", steps.copy("x", "/app/"), steps.run(_PLAIN))
    recipe = steps.recipe(stage)
    assert isinstance(stage.base, ImageSource)
    mkosi.write(recipe, find_base(stage.base), tmp_path, name="machine", put=put_twice)
    assert not (tmp_path / "mkosi/mkosi.extra").exists()
    assert _script(tmp_path).endswith("\n/work/src/provision.sh --from 1\n")


@pytest.mark.parametrize(
    ("image", "distribution", "release", "package"),
    [
        ("ubuntu:24.04", "ubuntu", "noble", "?priority(required)"),
        ("archlinux", "arch", "rolling", "base"),
        ("fedora:44", "fedora", "44", "fedora-release-container"),
        ("rockylinux:9", "rocky", "9", "rocky-release"),
        ("almalinux:10-minimal", "alma", "10", "microdnf"),
        ("quay.io/centos/centos:stream9", "centos", "9", "centos-stream-release"),
        ("opensuse/tumbleweed", "opensuse", "tumbleweed", "zypper"),
    ],
)
def test_other_distributions(
    image: str, distribution: str, release: str, package: str, tmp_path: Path
) -> None:
    _write(steps.recipe(steps.stage(image, steps.run("true"))), tmp_path)
    settings = _settings(tmp_path)
    assert (settings["Distribution"], settings["Release"]) == (distribution, release)
    assert package in settings["Packages"].split()
    _script(tmp_path)


@pytest.mark.parametrize("image", ["node:20", "alpine:3.20"])
def test_a_base_that_mkosi_cannot_make(image: str, tmp_path: Path) -> None:
    notes = _write(steps.recipe(steps.stage(image, steps.run("true"))), tmp_path)
    settings = _settings(tmp_path)
    assert (settings["Distribution"], settings["BaseTrees"]) == ("custom", "base")
    assert "Packages" not in settings
    assert "bootstrap.sh" in notes
    assert _script(tmp_path).endswith("\n/work/src/provision.sh --from 1\n")


def test_a_stage_that_is_built_upon(tmp_path: Path) -> None:
    first = steps.stage("debian:12", steps.run("true"), name="tools")
    recipe = steps.recipe(steps.stage(StageSource(0), steps.run("true"), index=1), first)
    notes = _write(recipe, tmp_path)
    assert _settings(tmp_path)["BaseTrees"] == "../stages/tools/root"
    assert "build.sh" in notes
    assert "../build.sh --stages" in (tmp_path / "mkosi/mkosi.conf").read_text()


def test_scratch_has_no_tree(tmp_path: Path) -> None:
    assert "build.sh" in _write(steps.recipe(steps.stage(None, steps.copy("x", "/x"))), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_settings_file_goes_with_it(tmp_path: Path) -> None:
    _write(steps.recipe(steps.stage("debian:12")), tmp_path, nspawn="[Exec]\nUser=noroot\n")
    assert (tmp_path / "mkosi/mkosi.nspawn").read_text() == "[Exec]\nUser=noroot\n"


def test_the_environment_of_what_is_installed(tmp_path: Path) -> None:
    state = replace(STATE, env=(*STATE.env, ("APP", "a b")))
    _write(steps.recipe(steps.stage("debian:12", steps.run(_PLAIN, state))), tmp_path)
    assert _settings(tmp_path)["Environment"] == '"APP=a b"'


def test_hostile_names_are_data(tmp_path: Path) -> None:
    evil = "x\n[Build]\nEnvironment=LD_PRELOAD=/x\n'; touch /tmp/owned; $(touch /tmp/owned)"
    stage = replace(steps.stage(evil, steps.run(evil)), name=evil)
    recipe = replace(steps.recipe(stage), file=evil)
    _write(recipe, tmp_path)
    assert set(_settings(tmp_path)) == {
        "Distribution", "Architecture", "Format", "Output", "OutputDirectory", "Bootable", "BaseTrees",
        "RemoveFiles", "BuildSources", "WithNetwork",
    }  # fmt: skip
    assert "touch" not in _script(tmp_path)


def test_what_the_machine_needs_in_its_tree_comes_last(tmp_path: Path) -> None:
    changes = (
        TreeChange("/var/log", "dir"),
        TreeChange("/etc/mtab", "link", content=b"/proc/mounts"),
        TreeChange("/etc/it's", "file", 0o644, content=b"x"),
        TreeChange("/data", "mount point"),
    )
    stage = steps.stage("debian:12", steps.run("true"))
    mkosi.write(steps.recipe(stage), None, tmp_path, name="machine", changes=changes)
    rest = _script(tmp_path).partition("/work/src/provision.sh --from 1\n")[2]
    assert "mkdir -p '/var/log'\n" in rest
    assert "ln -s '/proc/mounts' '/etc/mtab'\n" in rest
    assert "cp /work/src/tree/2 '/etc/it'\\''s'\nchmod 644 '/etc/it'\\''s'\n" in rest
