"""A build context made up for a Recipe: something at every path that its COPY, ADD and bind mounts ask for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from converter.dockerfile.model import Copy, Recipe, Run
from tests.layers import file, tar

_REMOTE = re.compile(r"https?://|git@|git://|ssh://")
_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.\w+)$")
_CLASS = re.compile(r"\[(\^?)(\\?.)[^\]]*\]")


def make_context(recipe: Recipe, directory: Path) -> None:
    """Files for what is named, directories for what ends in a slash or has something named below it."""
    wanted = sorted({posixpath.normpath(f"/{path}") + "/" * path.endswith("/") for path in _asked(recipe)})
    for path in wanted:
        place = directory / path.strip("/")
        below = any(other.startswith(path.rstrip("/") + "/") for other in wanted if other != path)
        if path.endswith("/") or below or path == "/":
            place.mkdir(parents=True, exist_ok=True)
            (place / "some-file").write_text("something\n")
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_content(path))


def _asked(recipe: Recipe) -> Iterator[str]:
    for stage in recipe.stages:
        for step in stage.steps:
            if isinstance(step, Copy) and step.origin is None:
                yield from (_plain(source) for source in step.sources if not _REMOTE.match(source))
            if isinstance(step, Run):
                yield from (
                    f"{mount.source}/" if mount.source == "/" else mount.source
                    for mount in step.mounts
                    if mount.kind == "bind" and mount.origin is None
                )


def _plain(source: str) -> str:
    """A name that the wildcards of a source match. What seems to be no file is a directory."""
    name = _CLASS.sub(lambda found: "_" if found[1] else found[2][-1], source)
    name = re.sub(r"\\(.)", r"\1", name.replace("**", "x").replace("*", "x").replace("?", "x"))
    last = posixpath.basename(name.rstrip("/"))
    return name if "." in last.strip(".") or last in {"Dockerfile", "Gemfile", "Makefile"} else f"{name}/"


def _content(path: str) -> bytes:
    return tar(file("unpacked", b"something\n")) if _ARCHIVE.search(path) else b"#!/bin/sh\n"
