"""The images that a Dockerfile takes something from, as layers of the cache: made here, or taken as they are."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from converter.cache.store import Cache, Layer, Making, key_of
from converter.dockerfile.bases import Base, find_base
from converter.dockerfile.bootstrap import identity, make
from converter.dockerfile.model import ImageSource
from converter.errors import ConversionError
from converter.image.model import Healthcheck, Image, ImageConfig, this_platform
from converter.note import Note
from converter.progress import Progress
from converter.rootfs.extract import writing
from converter.rootfs.merge import Limits, scan


class BaseImages:
    """Configs and layers of images. For one thread.

    `open_image` takes an image from where it is, into its second argument. `made_here`: which are made here
    instead, if they are of a known distribution. `identity` tells what an image's name stands for now from what it
    stood for before, as far as that can be told without taking it. `pull`: anew, also what the cache has.
    """

    def __init__(
        self,
        cache: Callable[[], Cache],
        spool: Path,
        open_image: Callable[[ImageSource, Path], Image],
        *,
        made_here: Callable[[ImageSource], bool],
        identity: Callable[[ImageSource], str],
        pull: bool,
        mirror: str | None,
        limits: Limits,
        stopped: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._open_cache = cache
        self._spool = spool
        self._open_image = open_image
        self._made_here = made_here
        self._identity = identity
        self._pull = pull
        self._mirror = mirror
        self._limits = limits
        self._stopped = stopped
        self._progress = progress
        self._known: dict[ImageSource, Layer] = {}
        self.notes: list[Note] = []

    def config(self, source: ImageSource) -> ImageConfig:
        """The image's config. Raises ConversionError when it cannot be had."""
        if (base := self._base(source)) is not None:
            return base.config
        return _config_of(self.layer(source).config or {})

    def layer(self, source: ImageSource) -> Layer:
        """The image's tree. Raises ConversionError when it cannot be had."""
        if source not in self._known:
            base = self._base(source)
            self._known[source] = self._made(base) if base is not None else self._taken(source)
        return self._known[source]

    @property
    def _cache(self) -> Cache:
        return self._open_cache()

    def _base(self, source: ImageSource) -> Base | None:
        return find_base(source) if self._made_here(source) else None

    def _made(self, base: Base) -> Layer:
        self.notes += base.notes
        name = key_of("base", identity(base, self._mirror), str(base.platform))
        with self._cache.locked(name, self._stopped):
            if not self._pull and (layer := self._cache.named(name)) is not None:
                return layer
            # Made anew it is another one: what was built on the old one is not built on this.
            with self._cache.making(key_of("base", name, time.time_ns()), self._stopped) as making:
                assert making is not None  # nobody else has this key
                make(base, making.tree, mirror=self._mirror, spool=self._spool, progress=self._progress)
                layer = self._cache.complete(making, f"FROM {base.image}", parent=None, whole=True)
            self._cache.name(name, layer)
            return layer

    def _taken(self, source: ImageSource) -> Layer:
        name = key_of("image", self._identity(source), str(source.platform or this_platform()))
        if not self._pull and (layer := self._cache.named(name)) is not None:
            return layer
        place = self._spool / f"image-{name}"
        place.mkdir(mode=0o700)
        image = self._open_image(source, place)
        if image.platform.os != "linux":
            raise ConversionError(
                f"{source.name} is for {image.platform}; only Linux images can be built upon"
            )
        identities = [layer.diff_id or layer.digest or time.time_ns() for layer in image.layers]
        key = key_of("image", identities, asdict(image.config))
        with self._cache.making(key, self._stopped) as making:
            if making is None:
                found = self._cache.find(key)
                assert found is not None  # layers are not removed while a build holds the cache
                layer = found
            else:
                self._unpack(image, making)
                layer = self._cache.complete(
                    making, f"FROM {source.name}", parent=None, whole=True, config=asdict(image.config)
                )
        self._cache.name(name, layer)
        shutil.rmtree(place)
        return layer

    def _unpack(self, image: Image, making: Making) -> None:
        root_fd = os.open(making.tree, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with writing(root_fd, ownership=True) as writer:
                plan = scan(
                    image.layers,
                    progress=self._progress,
                    limits=self._limits,
                    keep=writer.keep,
                    drop=writer.drop,
                )
                losses = writer.finish(plan, self._progress)
        finally:
            os.close(root_fd)
        self.notes += [Note("dropped", image.source, loss) for loss in (*losses, *image.losses)]


def _config_of(stored: dict[str, Any]) -> ImageConfig:
    """An ImageConfig back from what asdict and JSON have made of it."""
    values = {field.name: stored[field.name] for field in fields(ImageConfig) if field.name in stored}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if (check := values.get("healthcheck")) is not None:
        values["healthcheck"] = Healthcheck(**{**check, "test": tuple(check["test"])})
    return ImageConfig(**values)
