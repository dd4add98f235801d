"""What `docker build` was told beside the Dockerfile, as far as it changes what the Dockerfile means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from converter.image.model import Platform, this_platform


@dataclass(frozen=True)
class BuildOptions:
    """`--target` (a stage's name or number; None: the last), `--build-arg` and `--platform`."""

    target: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=this_platform)
    build_platform: Platform = field(default_factory=this_platform)
