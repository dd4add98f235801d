"""Layers as one tree, by overlayfs, with the options that Docker's overlay2 gives it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from converter.cache.store import Cache, Layer, key_of
from converter.dockerfile.namespace import bind, mount, unmount, working_directory
from converter.rootfs.layered import put_together

# A file stays whole in its layer: nothing is found anywhere but at its own path.
_OPTIONS = "index=off,metacopy=off,redirect_dir=off"
# Nothing is worth a sync before the layer is complete; then the whole file system is synced (Linux 5.10).
_VOLATILE = ",volatile"
_MOST = 100  # layers in one mount: what one page of options holds of them
_CANNOT = frozenset({errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP, errno.ELOOP, errno.EPERM})


def trees_of(layers: Sequence[Layer]) -> list[Path]:
    """The trees that count, the lowest first."""
    trees: list[Path] = []
    for layer in layers:
        if layer.whole:
            trees.clear()
        if layer.tree is not None:
            trees.append(layer.tree)
    return trees


def can_overlay(cache: Cache, stopped: Callable[[], None]) -> bool:
    """Can overlayfs have its upper directories in the cache? Needs a mount namespace of one's own."""
    with cache.making(key_of("probe", os.urandom(16).hex()), stopped) as making:
        assert making is not None  # nobody else has this key
        for name in ("lower", "upper", "work", "mount"):
            (making.work / name).mkdir()
        try:
            with working_directory(making.work):
                mount("overlay", "mount", f"lowerdir=lower,upperdir=upper,workdir=work,{_OPTIONS}")
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
        unmount(making.work / "mount")
        return True


@contextmanager
def shown(
    cache: Cache, layers: Sequence[Layer], scratch: Path, *, writable: bool = False, overlay: bool = True
) -> Iterator[Path]:
    """The tree of `layers` meanwhile, at a path below the new directory `scratch`, which is in the cache's layers/.

    When it is `writable`, what is changed goes to `scratch` too. Without `overlay` it is a copy.
    """
    scratch.mkdir(mode=0o700)
    root = scratch / "root"
    root.mkdir(mode=0o755)
    if not overlay:
        copy(trees_of(layers), root)
        bind(root, root)
    else:
        upper = None
        if writable:
            upper = scratch / "upper"
            upper.mkdir(mode=0o755)
        mount_layers(cache, trees_of(layers), root, upper, scratch)
    try:
        yield root
    finally:
        unmount(root)


def mount_layers(
    cache: Cache, trees: Sequence[Path], target: Path, upper: Path | None, scratch: Path
) -> None:
    """Show `trees`, the lowest first, at `target`; changes go to `upper`. All are below the cache's layers/.

    `scratch` is a directory beside `upper` on its file system. Raises OSError.
    """
    empty = scratch / "empty"  # overlayfs wants a lower directory, and two where nothing is written
    work = scratch / "overlay"
    empty.mkdir(mode=0o755)
    lower = [path.relative_to(cache.layers) for path in (*reversed(trees), empty)]
    options = f"lowerdir={':'.join(map(str, lower))}"
    if upper is None:
        if len(lower) == 1:
            options += f":{lower[0]}2"
            empty.with_name("empty2").mkdir(mode=0o755)
    else:
        work.mkdir(mode=0o700)
        options += f",upperdir={upper.relative_to(cache.layers)},workdir={work.relative_to(cache.layers)}"
    absolute = target.absolute()
    with working_directory(cache.layers):
        try:
            mount("overlay", absolute, f"{options},{_OPTIONS}{_VOLATILE if upper else ''}")
        except OSError as error:
            if error.errno != errno.EINVAL or upper is None:
                raise
            mount("overlay", absolute, f"{options},{_OPTIONS}")


def copy(trees: Sequence[Path], target: Path) -> None:
    """Put what `trees`, the lowest first, come to into the empty directory `target`. Raises OSError."""
    root_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        put_together(trees, root_fd)
    finally:
        os.close(root_fd)


def shortened(cache: Cache, layers: tuple[Layer, ...], stopped: Callable[[], None]) -> tuple[Layer, ...]:
    """The same tree with few enough layers for one mount: when they are too many, one that holds all of them."""
    if len(trees_of(layers)) < _MOST:
        return layers
    key = key_of("flat", layers[-1].key)
    if (flat := cache.find(key)) is None:
        with cache.making(key, stopped) as making:
            if making is not None:
                copy(trees_of(layers), making.tree)
                flat = cache.complete(making, "all layers so far", parent=layers[-1].key, whole=True)
            else:
                flat = cache.find(key)
    assert flat is not None  # layers are not removed while a build holds the cache
    return (flat,)
