"""Making one layer: the cache's, or a step's changes in a tree that is mounted for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converter.cache.store import Cache, Layer, Making, key_of
from converter.dockerfile.context import Source
from converter.dockerfile.model import DockerfileError, ImageSource, Stage, StageSource, Step
from converter.dockerfile.namespace import bind, unmount
from converter.dockerfile.overlay import copy, mount_layers, shown, trees_of
from converter.dockerfile.running import Running
from converter.errors import ConversionError
from converter.note import Note
from converter.progress import Progress

Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Surroundings:
    """What all steps of a build have in common; see build.Settings."""

    cache: Cache
    context: Source
    spool: Path
    running: Running
    stopped: Callable[[], None]
    progress: Progress
    chroot: bool
    use_cache: bool
    secrets: Mapping[str, bytes]
    agents: Mapping[str, Path]
    allow: frozenset[str]
    output: Callable[[str, bytes], None] | None
    debug_shell: bool
    overlay: bool
    images: Mapping[ImageSource, Layer]
    stages: Mapping[int, Layers]
    notes: list[Note]

    def with_stages(self, stages: Mapping[int, Layers], *, overlay: bool) -> Surroundings:
        """The same for a stage that takes something from those."""
        return replace(self, stages=stages, overlay=overlay)

    def layers_of(self, origin: StageSource | ImageSource) -> Layers:
        """Of another stage or image."""
        return self.stages[origin.index] if isinstance(origin, StageSource) else (self.images[origin],)


def top(layers: Layers) -> str:
    """The key of what `layers` come to."""
    return layers[-1].key if layers else key_of("scratch")


def make_layer(
    step: Step,
    stage: Stage,
    key: str,
    below: Layers,
    common: Surroundings,
    make: Callable[[Path, Making], None],
    *,
    apart: bool = False,
) -> Layer:
    """The layer of that key: the cache's, or what `make` changes in the tree that it is given.

    `apart`: in an empty tree, not in that of the layers below.
    """
    if common.use_cache:
        if (found := common.cache.named(key) or common.cache.find(key)) is not None:
            return found
        made_as = key
    else:
        made_as = key_of("anew", key, os.urandom(16).hex())
    label = f"[{stage.label}] {step.instruction.text.partition(chr(10))[0]}"
    with (
        common.progress.step(label[:100], None, "seconds"),
        common.cache.making(made_as, common.stopped) as making,
    ):
        if making is None:
            made = common.cache.find(made_as)
            assert made is not None  # layers are not removed while a build holds the cache
            return made
        whole = not common.overlay and not apart
        with _tree(below, making, common, apart=apart) as tree:
            make(tree, making)
        made = common.cache.complete(making, step.instruction.text, parent=top(below), whole=whole)
    if made_as != key:
        common.cache.name(key, made)
    return made


@contextlib.contextmanager
def _tree(below: Layers, making: Making, common: Surroundings, *, apart: bool) -> Iterator[Path]:
    """The tree in which a step makes its changes, a mount point."""
    if apart:
        yield making.tree
        return
    root = making.work / "root"
    root.mkdir(mode=0o755)
    if common.overlay:
        scratch = making.work / "layers"
        scratch.mkdir(mode=0o700)
        mount_layers(common.cache, trees_of(below), root, making.tree, scratch)
    else:
        copy(trees_of(below), making.tree)
        bind(making.tree, root)
    try:
        yield root
    finally:
        unmount(root)


def view(layers: Layers, common: Surroundings, stack: contextlib.ExitStack) -> Path:
    """The tree of other layers, until the stack is closed."""
    scratch = stack.enter_context(_scratch(common))
    return stack.enter_context(shown(common.cache, layers, scratch / "view", overlay=common.overlay))


@contextlib.contextmanager
def _scratch(common: Surroundings) -> Iterator[Path]:
    """A directory in the cache's layers/, told by its lock from one that a killed build has left."""
    key = key_of("scratch", os.urandom(16).hex())
    with common.cache.making(key, common.stopped) as making:
        assert making is not None  # nobody else has this key
        yield making.work


@contextlib.contextmanager
def located(step: Step) -> Iterator[None]:
    """Whatever is wrong is wrong with this step."""
    try:
        yield
    except DockerfileError:
        raise
    except ConversionError as error:
        raise step.instruction.error(str(error)) from None
