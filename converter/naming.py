"""The name of a machine for which the user has chosen none."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

from converter.image.reference import Reference, machine_name
from converter.places import Places

_HOST_NAME_MAX = 64  # bytes, sethostname(2): a machine's name is its host name too


def own_name(reference: Reference, places: Places) -> str:
    """The reference's own name, with a mark when a machine that was made from something else has it already."""
    name = machine_name(reference)
    try:
        taken_by = json.loads(places.record(name).read_bytes())["reference"]
    except (OSError, ValueError, LookupError, TypeError):
        return name
    if taken_by in _records(reference) or not places.tree(name).exists():
        return name
    return marked(name, reference)


def marked(name: str, reference: Reference) -> str:
    """`name` with a mark that tells `reference` from all others of that name."""
    mark = sha256(reference.full().encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{name[: _HOST_NAME_MAX - len(mark) - 1].rstrip('.-')}-{mark}"


def _records(reference: Reference) -> set[str]:
    """What the record of a machine made of `reference` may say; a bare image name is told in full there."""
    if reference.transport != "image":
        return {reference.full()}
    return {replace(reference, transport=there).full() for there in ("docker-daemon", "docker")}
