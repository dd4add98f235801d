"""Translates the corpus of Dockerfiles again and again: `python -m benchmarks.translating DIRECTORY COUNT`.

With no COUNT it makes the contexts in DIRECTORY, which is not part of what is measured.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from converter.dockerfile.bases import find_base
from converter.dockerfile.model import ImageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.dockerfile.translate import Wanted, translate
from converter.image.model import Image, ImageConfig, Platform, this_platform
from tests.made_contexts import make_context

_CORPUS = Path(__file__).parent.parent / "fixtures/dockerfiles"
_REMOTE = re.compile(rb"^ADD .*(?:https?://|git@).*\n", re.MULTILINE)  # what a network takes is not ours


def stand_in(name: str, platform: Platform | None, spool: Path) -> Image:
    """For the images of registries: only their config is asked for."""
    config = ImageConfig(env=("PATH=/usr/local/bin:/usr/bin:/bin", "APP_UID=1654"), cmd=("sh",))
    return Image(f"docker://{name}", None, platform or this_platform(), config, ())


def _config(source: ImageSource) -> ImageConfig:
    base = find_base(source)
    return base.config if base is not None else stand_in(source.name, source.platform, Path()).config


def _prepare(directory: Path) -> None:
    for path in sorted(_CORPUS.glob("*.Dockerfile")):
        context = directory / path.stem
        context.mkdir(parents=True)
        data = _REMOTE.sub(b"", path.read_bytes())
        make_context(evaluate(read(path, data), BuildOptions(), _config), context)
        (context / "Dockerfile").write_bytes(data)


def _translate(directory: Path, count: int) -> None:
    contexts = sorted(path for path in directory.iterdir() if (path / "Dockerfile").exists())
    for number in range(count):
        context = contexts[number % len(contexts)]
        translate(Wanted(context, directory / f"output-{number}", context.name), stand_in)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _translate(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        _prepare(Path(sys.argv[1]))
