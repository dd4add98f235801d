"""What several images have in common is made once: trees of their lowest layers, and single layers without compression.

A batch finds out what that is (`Shared`); each of its conversions takes it from the cache, or makes it where it is not
there yet. Sharing only saves time: whatever does not work out this way is done without, and then fails with its reason
or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from converter.cache.removal import kept_from_machinectl
from converter.cache.store import Cache, Making, key_of
from converter.cache.store import Layer as Cached
from converter.errors import NO_ROOM, ConversionError, NoRoomError, PassingError
from converter.image.chain import chain_ids, known_diff_ids
from converter.image.model import Image, Layer, UnpackedLayer
from converter.linux import has_open_in_root
from converter.places import Places
from converter.progress import Progress
from converter.rootfs.clone import clone_tree
from converter.rootfs.extract import writing
from converter.rootfs.merge import Limits, Plan, scan
from converter.rootfs.over import lay_over
from converter.rootfs.stream import AnyLayer, unpacked

_TREE = 1  # a tree of another format is another tree


@dataclass(frozen=True)
class Shared:
    """What is worth keeping: `chains` are the chain ids of trees, `layers` the diff ids of layers outside of them."""

    chains: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.chains or self.layers)


@contextmanager
def sharing(places: Places, shared: Shared | None) -> Iterator[Sharing | None]:
    """The way to what is shared, for one conversion; None without, and where it cannot be: it needs root, openat2."""
    if not shared or os.geteuid() != 0 or not has_open_in_root():
        yield None
        return
    with kept_from_machinectl(places.trees) as kept:
        if not kept:
            yield None
            return
        try:
            cache = Cache(places.trees)
        except OSError:
            yield None
            return
        with closing(cache), ExitStack() as held:
            yield Sharing(cache, shared, held)


class Sharing:
    """What one conversion shares with others. What it uses stays in the cache at least until `held` is closed."""

    def __init__(self, cache: Cache, shared: Shared, held: ExitStack) -> None:
        self._cache = cache
        self._shared = shared
        self._held = held
        self.left_out = False  # layers, because the cache has them

    def needed(self, diff_ids: Sequence[str]) -> Collection[int]:
        """The numbers of the layers of such an image that have to be read, because the cache does not have them."""
        count, _ = self._best(chain_ids(diff_ids))
        needed = [
            number
            for number in range(count, len(diff_ids))
            if diff_ids[number] not in self._shared.layers or self._use(_layer_key(diff_ids[number])) is None
        ]
        self.left_out = len(needed) < len(diff_ids)
        return needed

    def needed_to_make(self, diff_ids: Sequence[str]) -> Collection[int]:
        """The numbers of the layers that have to be read to make only what is shared."""
        chains = chain_ids(diff_ids)
        top = max((count for count, chain in enumerate(chains, 1) if chain in self._shared.chains), default=0)
        return [
            number
            for number in self.needed(diff_ids)
            if number < top or diff_ids[number] in self._shared.layers
        ]

    def unpack(self, image: Image, tree: Path, *, limits: Limits, progress: Progress) -> bool:
        """Make the empty directory `tree` that of the image; False when it does not work out, and `tree` is of no use.

        False too when it shares nothing. Raises PassingError, and NoRoomError or OSError when the disk is full.
        """
        try:
            return self._unpack(image, tree, limits, progress)
        except (PassingError, NoRoomError):
            raise
        except ConversionError:
            return False
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            return False

    def make(self, image: Image, *, limits: Limits, progress: Progress) -> None:
        """Put what others share with the image into the cache. Raises ConversionError and OSError."""
        self._base(image, limits, progress)
        self._layers(image.layers)

    def _unpack(self, image: Image, tree: Path, limits: Limits, progress: Progress) -> bool:
        count, base = self._base(image, limits, progress)
        layers = self._layers(image.layers[count:])
        if base is None and layers == list(image.layers):
            return False
        if base is not None and base.tree is not None:
            clone_tree(base.tree, tree)
        if layers:
            _write_layers(tree, base, layers, limits, progress)
        return True

    def _base(self, image: Image, limits: Limits, progress: Progress) -> tuple[int, Cached | None]:
        """The tree of as many of the image's lowest layers as are shared, and how many they are."""
        chains = chain_ids(known_diff_ids(image))
        count, base = self._best(chains)
        for more in range(count + 1, len(chains) + 1):
            if chains[more - 1] in self._shared.chains:
                base = self._made(chains, more, base, image.layers[count:more], limits, progress)
                count = more
        return count, base

    def _best(self, chains: Sequence[str]) -> tuple[int, Cached | None]:
        """The largest tree of the image's lowest layers that the cache has, and how many they are."""
        for count in range(len(chains), 0, -1):
            if chains[count - 1] in self._shared.chains and (
                found := self._use(_tree_key(chains[count - 1]))
            ):
                return count, found
        return 0, None

    def _made(
        self,
        chains: Sequence[str],
        count: int,
        below: Cached | None,
        layers: Sequence[AnyLayer],
        limits: Limits,
        progress: Progress,
    ) -> Cached:
        key = _tree_key(chains[count - 1])
        with self._cache.making(key, lambda: None, subvolume=True) as making:
            if making is not None:
                about = _make_tree(making, below, self._layers(layers), limits, progress)
                what = f"{count} layer{'s' if count > 1 else ''}, {chains[count - 1]}"
                parent = below.key if below is not None else None
                self._cache.complete(making, what, parent=parent, whole=True, config=about)
        return self._used(key)

    def _layers(self, layers: Sequence[AnyLayer]) -> list[AnyLayer]:
        """The same layers, those that are shared from the cache."""
        return [self._layer(layer) for layer in layers]

    def _layer(self, layer: AnyLayer) -> AnyLayer:
        if (
            isinstance(layer, UnpackedLayer)
            or layer.diff_id is None
            or layer.diff_id not in self._shared.layers
        ):
            return layer
        key = _layer_key(layer.diff_id)
        if (there := self._use(key)) is None:
            with self._cache.making(key, lambda: None) as making:
                if making is not None:
                    with (making.tree / "layer.tar").open("wb") as file:
                        for chunk in unpacked(layer):
                            file.write(chunk)
                    self._cache.complete(making, f"layer {layer.diff_id}", parent=None, whole=True)
            there = self._used(key)
        assert there.tree is not None
        path = there.tree / "layer.tar"
        # It has been verified when it was put there.
        return Layer(path, 0, path.stat().st_size)

    def _use(self, key: str) -> Cached | None:
        return self._held.enter_context(self._cache.using(key))

    def _used(self, key: str) -> Cached:
        if (there := self._use(key)) is None:
            raise ConversionError("what was just made is no longer in the cache; run this again")
        return there


def _make_tree(
    making: Making, below: Cached | None, layers: Sequence[AnyLayer], limits: Limits, progress: Progress
) -> dict[str, int]:
    """What has been counted of the tree's layers, for later limits."""
    if below is not None and below.tree is not None:
        clone_tree(below.tree, making.tree)
    plan = _write_layers(making.tree, below, layers, limits, progress)
    before = _counted(below)
    return {"entries": before["entries"] + plan.entries, "content": before["content"] + plan.content}


def _write_layers(
    tree: Path, below: Cached | None, layers: Sequence[AnyLayer], limits: Limits, progress: Progress
) -> Plan:
    """Write layers into an empty directory, or over the clone of what lies `below` them."""
    root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if below is not None:
            return lay_over(root_fd, layers, progress=progress, limits=_rest(limits, below))
        with writing(root_fd, ownership=True) as writer:
            plan = scan(layers, progress=progress, limits=limits, keep=writer.keep, drop=writer.drop)
            if losses := writer.finish(plan, progress):
                raise ConversionError(losses[0])
            return plan
    finally:
        os.close(root_fd)


def _counted(cached: Cached | None) -> dict[str, int]:
    return {"entries": 0, "content": 0, **((cached.config or {}) if cached is not None else {})}


def _rest(limits: Limits, base: Cached) -> Limits:
    """What the limits leave for the layers above a tree."""
    counted = _counted(base)
    content = None if limits.content is None else max(0, limits.content - counted["content"])
    return replace(limits, entries=max(0, limits.entries - counted["entries"]), content=content)


def _tree_key(chain_id: str) -> str:
    return key_of("tree", _TREE, chain_id)


def _layer_key(diff_id: str) -> str:
    return key_of("layer", _TREE, diff_id)
