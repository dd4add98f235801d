"""One step of a stage: its layer, from the cache or made now."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from converter.cache.store import Layer, Making, key_of
from converter.dockerfile.context import Source
from converter.dockerfile.copying import fingerprint, put, select
from converter.dockerfile.making import Layers, Surroundings, located, make_layer, top, view
from converter.dockerfile.model import Copy, ImageSource, Run, Stage, Step, Workdir
from converter.dockerfile.overlay import shortened
from converter.dockerfile.owners import resolve_owner
from converter.dockerfile.points import make_directories
from converter.dockerfile.run_step import build_run
from converter.note import Note


def build_step(step: Step, stage: Stage, below: Layers, common: Surroundings) -> Layers:
    """The layers after `step`. Raises DockerfileError when it fails, and whatever `stopped` raises."""
    below = shortened(common.cache, below, common.stopped)
    if isinstance(step, Run):
        return (*below, build_run(step, stage, below, common))
    if isinstance(step, Copy):
        return (*below, _copy(step, stage, below, common))
    if isinstance(step, Workdir):
        return (*below, _workdir(step, stage, below, common))
    return below


def _workdir(step: Workdir, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    path, user = step.state.working_directory, step.state.user

    def make(tree: Path, making: Making) -> None:
        with located(step):
            root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                make_directories(root_fd, path, resolve_owner(user, tree) if user else (0, 0))
            finally:
                os.close(root_fd)

    return make_layer(step, stage, key_of("workdir", top(below), path, user), below, common, make)


def _copy(step: Copy, stage: Stage, below: Layers, common: Surroundings) -> Layer:
    # With --link it is the same upon whatever it lies. Names of owners are of one tree.
    # With --chmod BuildKit takes it for an ordinary COPY.
    apart = step.link and not step.chmod and (step.chown is None or not step.chown.strip("0123456789:"))
    parts = ("copy", "" if apart else top(below), _described(step))
    if step.origin is None:
        return _copy_from(step, stage, below, common, common.context, parts, apart=apart)
    origin = common.layers_of(step.origin)
    known = key_of(*parts, "from", top(origin))
    if common.use_cache and (found := common.cache.named(known)) is not None:
        return found
    name = step.origin.name if isinstance(step.origin, ImageSource) else f"stage {step.origin.index}"
    with contextlib.ExitStack() as stack:
        source = Source(view(origin, common, stack), name)
        layer = _copy_from(step, stage, below, common, source, parts, apart=apart)
    common.cache.name(known, layer)
    return layer


def _copy_from(
    step: Copy,
    stage: Stage,
    below: Layers,
    common: Surroundings,
    source: Source,
    parts: tuple[object, ...],
    *,
    apart: bool,
) -> Layer:
    spool = common.spool / f"copy-{stage.index}-{step.number}"
    selection = select(step, source, spool)
    common.notes.extend(Note("adapted", f"line {step.instruction.line}", note) for note in selection.notes)

    def make(tree: Path, making: Making) -> None:
        put(selection, step, tree, resolve_owner(step.chown, tree) if step.chown else None)

    return make_layer(step, stage, key_of(*parts, fingerprint(selection)), below, common, make, apart=apart)


def _described(step: Copy) -> dict[str, object]:
    """What of the step counts for its result, but for what it brings."""
    fields = {
        name: getattr(step, name) for name in ("add", "sources", "destination", "chown", "chmod", "link")
    }
    more = {
        name: getattr(step, name) for name in ("parents", "exclude", "checksum", "keep_git_dir", "unpack")
    }
    return {**fields, **more}
