"""What names the tree that an image's lowest layers make: OCI image-spec config.md, "Layer ChainID"."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from converter.image.model import Image


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ids of the lowest 1, 2, … layers."""
    chains: list[str] = []
    for diff_id in diff_ids:
        digest = sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest() if chains else ""
        chains.append(f"sha256:{digest}" if chains else diff_id)
    return chains


def known_diff_ids(image: Image) -> tuple[str, ...]:
    """The diff ids of an image's lowest layers, up to the first that has none (a container's changes)."""
    diff_ids = []
    for layer in image.layers:
        if layer.diff_id is None:
            break
        diff_ids.append(layer.diff_id)
    return tuple(diff_ids)
