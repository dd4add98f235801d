"""What we make of the cases: the stages built here, put together as a conversion does it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from converter.dockerfile.build import Builder, Settings, assemble
from converter.dockerfile.context import open_context
from converter.dockerfile.model import ImageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image import daemon
from converter.image.model import Image
from converter.places import Places
from converter.progress import Silent
from tests.dockerfiles.built import Built
from tests.dockerfiles.case import Case
from tests.dockerfiles.place import Place
from tests.trees import facts


def build_here(place: Place, work: Path, case: Case, *, chroot: bool = False) -> Built:
    """Build a case whose context is written; all cases have one cache, in `work`."""
    try:
        with tempfile.TemporaryDirectory(dir=work) as directory:
            return _build(place, Places(work), Path(directory), case, chroot=chroot)
    except ConversionError as error:
        return Built(error=str(error))


def _build(place: Place, places: Places, directory: Path, case: Case, *, chroot: bool) -> Built:
    spool, tree = directory / "spool", directory / "tree"
    spool.mkdir()
    tree.mkdir()

    def image(source: ImageSource, into: Path) -> Image:
        return daemon.open_image(source.name, platform=source.platform, spool=into, progress=Silent())

    context = place.context(case.name)
    dockerfile = context / case.file
    settings = Settings(
        image=image,
        made_here=lambda source: False,
        chroot=chroot,
        secrets={name: place.secret(case, name).read_bytes() for name in case.secrets},
        agents={"default": place.agent} if case.ssh else {},
        allow=frozenset(case.allow),
    )
    options = BuildOptions(target=case.target, build_args=case.build_args)
    with Builder(places, settings, spool, Silent()) as builder:
        recipe = evaluate(read(str(dockerfile), dockerfile.read_bytes()), options, builder.base_config)
        done = builder.build(recipe, open_context(context, dockerfile))
        assemble(done, tree)
        return Built(done.config, facts(tree))
