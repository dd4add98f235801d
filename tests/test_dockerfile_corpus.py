"""Dockerfiles in the style of real projects are read, evaluated and translated, and shellcheck likes what comes out."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from converter.dockerfile import parser, stages
from converter.dockerfile.bases import find_base
from converter.dockerfile.model import ImageSource, Recipe
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.translate import Wanted, translate
from converter.image.model import Image, ImageConfig, Platform, this_platform
from fuzz.dockerfile_checks import PATH, check_recipe
from tests.made_contexts import make_context

FILES = sorted((Path(__file__).parent.parent / "fixtures/dockerfiles").glob("*.Dockerfile"))
# What `docker build` would have to be told, too.
_ARGUMENTS = {
    "labels-and-args": {"VERSION": "v1.2.3", "REVISION": "abcdef"},
    "arg-driven-from": {"RELEASE": "trixie"},
}
_SERVED = b"served\n"
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
    halves = [
        subprocess.Popen(
            ["shellcheck", "--severity=warning", "--format=gcc", "--", *half],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for half in (scripts[::2], scripts[1::2])
    ]
    checked = "".join(half.communicate()[0] for half in halves)
    parsed = subprocess.run(
        ["/bin/sh", "-c", 'for script; do sh -n "$script" || echo "$script"; done', "sh", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    return checked + parsed.stdout + parsed.stderr


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


class _Anything(BaseHTTPRequestHandler):
    """Stands in for the servers of ADD's URLs: the same file under any name."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(_SERVED)))
        self.end_headers()
        self.wfile.write(_SERVED)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Anything) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def with_local_sources(data: bytes, server: str) -> bytes:
    """What ADD fetches is fetched from `server`; git repositories are left out."""
    data = re.sub(rb"(?m)^ADD .*\.git[ #].*\n", b"", data)
    data = re.sub(rb"(?m)^(ADD .*)https://", rb"\1" + server.encode() + b"/", data)
    return re.sub(
        rb"sha256:[0-9a-f]{64} http:", b"sha256:%s http:" % sha256(_SERVED).hexdigest().encode(), data
    )


def stand_in_image(name: str, platform: Platform | None, spool: Path) -> Image:
    """An image of a registry that is out of reach: only its config is asked for."""
    config = config_of_a_base_or_a_stand_in(ImageSource(name, platform))
    return Image(f"docker://{name}", None, platform or this_platform(), config, ())


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory, server: str) -> dict[str, Path]:
    """The output directories, by name."""
    top = tmp_path_factory.mktemp("corpus")
    outputs = {}
    for path in FILES:
        name = path.name.removesuffix(".Dockerfile")
        context = top / name / "context"
        context.mkdir(parents=True)
        make_context(recipe_of(path), context)
        (context / "Dockerfile").write_bytes(with_local_sources(path.read_bytes(), server))
        wanted = Wanted(
            context,
            top / name / "output",
            name,
            target=_TARGETS.get(name),
            build_args=tuple(f"{key}={value}" for key, value in _ARGUMENTS.get(name, {}).items()),
        )
        translate(wanted, stand_in_image)
        outputs[name] = wanted.output
    return outputs


def test_translation(translated: dict[str, Path]) -> None:
    assert len(translated) >= 100
    for name, output in translated.items():
        written = {path.name for path in output.iterdir()}
        assert {"bootstrap.sh", "provision.sh", "build.sh", "notes.txt", f"{name}.nspawn"} <= written
        notes = (output / "notes.txt").read_text()
        assert "mkosi" in written or "mkosi: not for FROM scratch" in notes
        assert all(line.startswith(("dropped ", "adapted ", "exact   ")) for line in notes.splitlines())
    copied = translated["copy-forms"] / "files"
    assert any("name with spaces.txt" in path.name for path in copied.rglob("*"))


def test_scripts_are_good_shell(translated: dict[str, Path]) -> None:
    """Of each Dockerfile provision.sh; of the other scripts, which are much alike, some."""
    others = [
        output / name for output in list(translated.values())[::20] for name in ("build.sh", "bootstrap.sh")
    ]
    assert shellcheck([*(output / "provision.sh" for output in translated.values()), *others]) == ""


@pytest.mark.lab
def test_other_scripts_are_good_shell(translated: dict[str, Path]) -> None:
    """Those of the other stages, every third: shellcheck takes its time."""
    scripts = {
        path.read_bytes(): path for output in translated.values() for path in output.glob("stages/*/*.sh")
    }
    assert len(scripts) > 100
    assert shellcheck(list(scripts.values())[::3]) == ""
