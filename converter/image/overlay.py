"""Images where Docker's overlay2 driver keeps them, read in place: no copy of them has to be saved first.

moby layer/filestore.go, image/fs.go and daemon/graphdriver/overlay2: below the daemon's root directory,
`image/overlay2/imagedb/content/sha256/ID` is a config; `image/overlay2/layerdb/sha256/CHAINID` has a layer's `diff`
(its diff id), `cache-id`, `size` and `tar-split.json.gz`; `overlay2/CACHE-ID/diff` has its files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from converter.image.chain import chain_ids
from converter.image.changes import changes_layer
from converter.image.config import parse_config
from converter.image.manifest import check_digest
from converter.image.model import Image, Layer, UnpackedLayer
from converter.linux import has_open_in_root

_CACHE_ID = re.compile(r"[0-9a-z]{20,64}")


def stored_image(info: Mapping[str, Any], image_id: str) -> Image | None:
    """The image `image_id` ("sha256:…") of the daemon that `docker info` says this of, below its root directory.

    None when it is not to be found there by us: another storage driver, another host, no right to read, a kernel
    that is too old. What is found is verified like any image's content. Raises ConversionError when its config is
    damaged.
    """
    if info.get("Driver") != "overlay2" or not info.get("DockerRootDir") or not has_open_in_root():
        return None
    root = Path(info["DockerRootDir"])
    try:
        data = (root / "image/overlay2/imagedb/content" / image_id.replace(":", "/")).read_bytes()
        if f"sha256:{sha256(data).hexdigest()}" != image_id:
            return None
        config, platform, diff_ids = parse_config(data)
        layers = [
            _stored_layer(root, chain_id, diff_id)
            for chain_id, diff_id in zip(chain_ids(diff_ids), map(check_digest, diff_ids), strict=True)
        ]
    except (OSError, ValueError):
        return None
    if not layers or None in layers:
        return None
    return Image(
        source="",
        digest=image_id,
        platform=platform,
        config=config,
        layers=tuple(layer for layer in layers if layer is not None),
    )


def stored_changes(inspected: Mapping[str, Any], path: Path) -> Layer | None:
    """The changes of the container that `docker inspect` says this of, as a layer in the new file `path`.

    None when they are not to be found by us.
    """
    driver = inspected.get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    if driver.get("Name") != "overlay2" or not upper or os.geteuid() != 0:
        return None
    directory = Path(upper)
    # That it is this container's on this host, the directory of its mounts tells: overlay2 keeps it beside.
    if not (directory.is_dir() and (directory.parent / "work").is_dir()):
        return None
    return changes_layer(directory, path)


def _stored_layer(root: Path, chain_id: str, diff_id: str) -> UnpackedLayer | None:
    place = root / "image/overlay2/layerdb" / chain_id.replace(":", "/")
    cache_id = (place / "cache-id").read_text()
    if (place / "diff").read_text() != diff_id or not _CACHE_ID.fullmatch(cache_id):
        return None
    recipe = place / "tar-split.json.gz"
    directory = root / "overlay2" / cache_id / "diff"
    if not (os.access(recipe, os.R_OK) and os.access(directory, os.R_OK | os.X_OK) and os.geteuid() == 0):
        return None
    return UnpackedLayer(directory, recipe, int((place / "size").read_text()), diff_id)
