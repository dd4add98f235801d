"""How the trees that a stage takes from are called below stages/, and secrets and caches beside provision.sh."""

from __future__ import annotations

import re
from hashlib import sha256

from converter.dockerfile.model import ImageSource, Recipe, Stage, StageSource

_STAGE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def stage_label(stage: Stage) -> str:
    """The directory of a stage below stages/."""
    return stage.label if _STAGE.fullmatch(stage.label) else file_name(stage.label)


def source_label(source: StageSource | ImageSource, recipe: Recipe) -> str:
    """The directory below stages/ of what something is taken from; no stage can have an image's."""
    if isinstance(source, StageSource):
        return stage_label(next(stage for stage in recipe.stages if stage.index == source.index))
    name = f"{source.name} {source.platform}" if source.platform else source.name
    return f"image={file_name(name)}"


def file_name(text: str) -> str:
    """A name for a file, for any text: itself where that is plain, else what is plain of it with a digest."""
    if _FILE.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("._-")[:40]
    digest = sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest
