"""A Recipe becomes layers, without Docker: its stages side by side, each step from the cache or made now.

A stage is built by a thread with a mount namespace of its own, in which the trees of its steps are mounted. A step's
layer is what it has changed; its key is that of the layer below with what the step does and takes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from converter import interrupt
from converter.cache.prune import LIMIT, trim_builds
from converter.cache.store import Cache, Layer
from converter.dockerfile.base_images import BaseImages
from converter.dockerfile.context import Source
from converter.dockerfile.making import Surroundings
from converter.dockerfile.model import ImageSource, Recipe, Stage, StageSource
from converter.dockerfile.namespace import own_namespace
from converter.dockerfile.overlay import can_overlay, copy, trees_of
from converter.dockerfile.running import Running, has_nspawn
from converter.dockerfile.steps import build_step
from converter.errors import ConversionError
from converter.image.model import Image, ImageConfig
from converter.note import Note
from converter.places import Places
from converter.progress import Progress
from converter.rootfs.merge import Limits

_SIDE_BY_SIDE = 4  # stages
_COPIES = Note(
    "adapted",
    "the cache",
    "overlayfs cannot be used where it lies, so each step is a copy of the whole tree: slower, and larger",
)


class StoppedError(Exception):
    """The build is to end: another stage has failed, or a signal came."""


@dataclass(frozen=True)
class Settings:
    """How it is built.

    `image` takes images from where they are, into its second argument; `made_here`: those are made here instead, from
    `mirror`, if they are of a known distribution. `identity` is another where an image's name stands for another image
    than before: the cache has what an image came to by it.

    `secrets` and `agents` are for RUN --mount, by id. `allow`: entitlements, as "security.insecure". `output` gets
    what a RUN prints, with the stage's label, while it runs; None: it is shown when it fails. `debug_shell`: a shell
    at the step that fails, on the terminal. `cache_size`: bytes that may stay in the cache, besides what was used.
    """

    image: Callable[[ImageSource, Path], Image]
    made_here: Callable[[ImageSource], bool] = lambda source: True
    identity: Callable[[ImageSource], str] = lambda source: source.name
    mirror: str | None = None
    use_cache: bool = True
    pull: bool = False
    chroot: bool = False
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    output: Callable[[str, bytes], None] | None = None
    debug_shell: bool = False
    limits: Limits = field(default_factory=Limits)
    cache_size: int = LIMIT


@dataclass(frozen=True)
class Built:
    """The target stage: its layers' trees, the lowest first, and its config."""

    layers: tuple[Path, ...]
    config: ImageConfig
    notes: tuple[Note, ...] = ()


class Builder:
    """Builds recipes with the cache of one host. Close it when what it has built is no longer needed."""

    def __init__(self, places: Places, settings: Settings, spool: Path, progress: Progress) -> None:
        if os.geteuid() != 0:
            raise ConversionError("a Dockerfile can be built by root only; run docker2nspawn with sudo")
        if not settings.chroot and not has_nspawn():
            raise ConversionError(
                "systemd-nspawn is not installed, in which RUN runs; install systemd-container, or use --chroot"
            )
        if settings.debug_shell and not os.isatty(0):
            raise ConversionError("--debug-shell is for a terminal; run docker2nspawn in one, or without it")
        self._settings = settings
        self._spool = Path(tempfile.mkdtemp(prefix="build-", dir=spool.absolute()))
        self._progress = progress
        self._running = Running()
        self._stopping = threading.Event()
        self._cache_directory = places.cache.absolute()
        self._begun = time.time() - 1  # a file's time may be some ms behind
        self._images = BaseImages(
            lambda: self._cache,
            self._spool,
            settings.image,
            made_here=settings.made_here,
            identity=settings.identity,
            pull=settings.pull,
            mirror=settings.mirror,
            limits=settings.limits,
            stopped=self._check_stopped,
            progress=progress,
        )

    def __enter__(self) -> Builder:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if "_cache" in self.__dict__:
            self._cache.close()
            if not isinstance(error, interrupt.Interrupted):
                trim_builds(self._cache_directory, self._settings.cache_size, before=self._begun)

    @cached_property
    def _cache(self) -> Cache:
        """Made when it is needed: a Dockerfile that is refused leaves nothing."""
        return Cache(self._cache_directory)

    def base_config(self, source: ImageSource) -> ImageConfig:
        """The config of an image that a Dockerfile speaks of. Raises ConversionError when it cannot be had."""
        return self._images.config(source)

    def build(self, recipe: Recipe, context: Source) -> Built:
        """Build the target, and the stages that it needs.

        Raises DockerfileError for what fails; layers that are complete by then stay in the cache.
        """
        images = {
            source: self._images.layer(source)
            for stage in recipe.stages
            for source in stage.sources()
            if isinstance(source, ImageSource)
        }
        notes: list[Note] = []
        surroundings = Surroundings(
            cache=self._cache,
            context=Source(context.root.absolute(), context.name, context.ignore, context.owned),
            spool=self._spool,
            running=self._running,
            stopped=self._check_stopped,
            progress=self._progress,
            chroot=self._settings.chroot,
            use_cache=self._settings.use_cache,
            secrets=self._settings.secrets,
            agents=self._settings.agents,
            allow=self._settings.allow,
            output=self._settings.output,
            debug_shell=self._settings.debug_shell,
            overlay=True,
            images=images,
            stages={},
            notes=notes,
        )
        layers = self._build_stages(recipe, surroundings)
        return Built(
            tuple(trees_of(layers)), recipe.target.config, (*self._images.notes, *dict.fromkeys(notes))
        )

    def _build_stages(self, recipe: Recipe, surroundings: Surroundings) -> tuple[Layer, ...]:
        results: dict[int, Future[tuple[Layer, ...]]] = {stage.index: Future() for stage in recipe.stages}
        places = threading.Semaphore(_SIDE_BY_SIDE)
        threads = [
            threading.Thread(
                target=self._build_stage, args=(stage, results, places, surroundings), daemon=True
            )
            for stage in recipe.stages
        ]
        try:
            for thread in threads:
                thread.start()
            wait(results.values(), return_when=FIRST_EXCEPTION)
        finally:
            with interrupt.held():
                self._stopping.set()
                self._running.end()
                for thread in threads:
                    thread.join()
        failures = [error for result in results.values() if (error := result.exception()) is not None]
        for error in failures:
            if not isinstance(error, StoppedError):
                raise error
        return results[recipe.target.index].result()

    def _build_stage(
        self,
        stage: Stage,
        results: Mapping[int, Future[tuple[Layer, ...]]],
        places: threading.Semaphore,
        surroundings: Surroundings,
    ) -> None:
        result = results[stage.index]
        try:
            needed = {index: self._wait_for(results[index]) for index in stage.needs()}
            with self._place(places):
                own_namespace()
                os.umask(0o022)
                overlay = can_overlay(self._cache, self._check_stopped)
                if not overlay:
                    surroundings.notes.append(_COPIES)
                own = surroundings.with_stages(needed, overlay=overlay)
                layers: tuple[Layer, ...] = ()
                if isinstance(stage.base, StageSource):
                    layers = needed[stage.base.index]
                elif stage.base is not None:
                    layers = (surroundings.images[stage.base],)
                for step in stage.steps:
                    self._check_stopped()
                    layers = build_step(step, stage, layers, own)
            result.set_result(layers)
        except BaseException as error:  # whatever it is, who waits for it gets it
            result.set_exception(_as_conversion_error(error))

    def _wait_for(self, result: Future[tuple[Layer, ...]]) -> tuple[Layer, ...]:
        try:
            return result.result()
        except Exception:
            raise StoppedError from None

    @contextlib.contextmanager
    def _place(self, places: threading.Semaphore) -> Iterator[None]:
        with places:
            self._check_stopped()
            yield

    def _check_stopped(self) -> None:
        if self._stopping.is_set():
            raise StoppedError


def _as_conversion_error(error: BaseException) -> BaseException:
    if isinstance(error, OSError):
        what = f" ({error.filename})" if error.filename else ""
        return ConversionError(f"cannot build: {error.strerror or error}{what}")
    return error


def build(
    recipe: Recipe, context: Source, places: Places, *, settings: Settings, spool: Path, progress: Progress
) -> Built:
    """Build the target of `recipe`. Raises DockerfileError for what fails."""
    with Builder(places, settings, spool, progress) as builder:
        return builder.build(recipe, context)


def assemble(built: Built, tree: Path) -> None:
    """Put the built tree together in the empty directory `tree`. Raises OSError."""
    copy(built.layers, tree)
