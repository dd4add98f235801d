"""Dockerfiles in the style of real projects: each is read, evaluated and translated, and shellcheck likes its scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from converter.dockerfile import bootstrap, parser, stages
from converter.dockerfile.bases import find_base
from converter.dockerfile.model import ImageSource, Recipe
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.script import provision
from converter.image.model import ImageConfig
from fuzz.dockerfile_checks import PATH, check_recipe

FILES = sorted((Path(__file__).parent.parent / "fixtures/dockerfiles").glob("*.Dockerfile"))
# What `docker build` would have to be told, too.
_ARGUMENTS = {
    "labels-and-args": {"VERSION": "v1.2.3", "REVISION": "abcdef"},
    "arg-driven-from": {"RELEASE": "trixie"},
}
_TARGETS = {"multi-target-ci": "test", "php-symfony-caddy": "frankenphp_dev", "node-pnpm-monorepo": "api"}


def config_of_a_base_or_a_stand_in(source: ImageSource) -> ImageConfig:
    """The config of the bases that are made here; images of registries, out of reach of a test, get a likely one."""
    base = find_base(source)
    if base is not None:
        return base.config
    return ImageConfig(
        env=(PATH, "LANG=C.UTF-8", "APP_UID=1654"), cmd=("sh",), working_dir="/srv", on_build=()
    )


def recipe_of(path: Path) -> Recipe:
    name = path.name.removesuffix(".Dockerfile")
    options = BuildOptions(target=_TARGETS.get(name), build_args=_ARGUMENTS.get(name, {}))
    return stages.evaluate(parser.read(path, path.read_bytes()), options, config_of_a_base_or_a_stand_in)


def shellcheck(scripts: list[Path]) -> str:
    """What it and the shell itself have against these scripts, in one go."""
    checked = subprocess.run(
        ["shellcheck", "--severity=warning", "--format=gcc", "--", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    parsed = subprocess.run(
        ["/bin/sh", "-c", 'for script; do sh -n "$script" || echo "$script"; done', "sh", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    return checked.stdout + checked.stderr + parsed.stdout + parsed.stderr


def test_there_are_enough() -> None:
    assert len(FILES) >= 100
    assert len({path.read_bytes() for path in FILES}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".Dockerfile"))
def test_evaluation(path: Path) -> None:
    recipe = recipe_of(path)
    check_recipe(recipe)
    written = parser.read(path, path.read_bytes()).instructions
    keywords = {instruction.keyword for instruction in written}
    assert "FROM" in keywords
    # What the last stage says about the machine is in its config, whatever the base has.
    last = [one.keyword for one in written[[one.keyword for one in written].index("FROM") :]]
    last = last[len(last) - last[::-1].index("FROM") :]
    if path.name.removesuffix(".Dockerfile") not in _TARGETS:
        config = recipe.target.config
        for keyword, value in {
            "CMD": config.cmd or config.entrypoint,
            "ENTRYPOINT": config.entrypoint or "ENTRYPOINT []" in path.read_text(),
            "USER": config.user,
            "EXPOSE": config.exposed_ports,
            "VOLUME": config.volumes,
            "HEALTHCHECK": config.healthcheck,
            "STOPSIGNAL": config.stop_signal,
            "LABEL": config.labels,
        }.items():
            assert bool(value) or keyword not in last, keyword


def test_scripts_are_good_shell(tmp_path: Path) -> None:
    scripts = []
    for path in FILES:
        recipe = recipe_of(path)
        for stage in recipe.stages:
            directory = tmp_path / path.name / str(stage.index)
            directory.mkdir(parents=True)
            (directory / "provision.sh").write_text(provision(stage, recipe), errors="surrogateescape")
            base = stage.base
            if base is None or isinstance(base, ImageSource):
                made = None if base is None else find_base(base) or base
                (directory / "bootstrap.sh").write_text(bootstrap.script(made), errors="surrogateescape")
            scripts += directory.iterdir()
    assert len(scripts) > 200
    assert shellcheck(scripts) == ""
