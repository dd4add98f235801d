"""A command in every field of a Dockerfile that is really built: it stays data, and nothing is changed outside."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from converter.dockerfile.build import Builder, Settings
from converter.dockerfile.context import open_context
from converter.dockerfile.model import ImageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig, this_platform
from converter.places import Places
from converter.progress import Silent
from fuzz.dockerfile_checks import recipe_or_error
from tests.building import busybox
from tests.hostile import snapshot
from tests.hostile_dockerfiles import CANARY, dockerfiles
from tests.layers import layer
from tests.made_contexts import make_context

_CHOSEN = ("-substitution", "-single-quotes", "-newline", "-option", "-separator")
# SHELL's last argument is a command, which RUN's shell carries out.
_COMMANDS = ("shell-option",)


def any_image(source: ImageSource, spool: Path) -> Image:
    """Whatever image a Dockerfile names is a busybox."""
    config = ImageConfig(env=("PATH=/bin",))
    return Image("lab/busybox", None, this_platform(), config, (layer(spool, busybox()),))


@pytest.mark.lab
def test_no_command_is_run(work: Path) -> None:
    place = work / "hostile-build"
    outside, spool = place / "outside", place / "spool"
    for directory in (outside, spool):
        directory.mkdir(parents=True)
    (outside / "kept").write_text("kept")
    before = snapshot(outside)
    settings = Settings(image=any_image, made_here=lambda source: False, chroot=True)
    built = refused = 0
    for number, (name, data) in enumerate(dockerfiles()):
        recipe = recipe_or_error(data)
        if isinstance(recipe, str) or not name.endswith(_CHOSEN):
            continue
        context = place / str(number)
        (context / "dir").mkdir(parents=True)
        (context / "dir/file").write_text("file\n")
        (context / "plain").write_text("plain\n")
        with contextlib.suppress(OSError, ValueError):  # no such file can be: COPY will not find it
            make_context(recipe, context)
        (context / "Dockerfile").write_bytes(data)
        try:
            with Builder(Places(place / "host"), settings, spool, Silent()) as builder:
                made = evaluate(read("Dockerfile", data), BuildOptions(), builder.base_config)
                result = builder.build(made, open_context(context, context / "Dockerfile"))
                built += 1
                run = [tree for tree in result.layers if (tree / CANARY.lstrip("/")).exists()]
                assert not run or name.startswith(_COMMANDS), name
        except ConversionError as error:
            assert str(error).isprintable()
            refused += 1
        assert not Path(CANARY).exists(), name
        assert snapshot(outside) == before, name
    assert built > 100
    assert refused < built
