"""What is there already: machines that an earlier run, or somebody who was killed, has made.

Each machine has its record, which is installed with it or not at all; no other memory is kept of a batch. What somebody
who was killed had decided to install is brought to its end before anybody looks, but for a dry run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from converter.batch.model import Job, Outcome, State
from converter.errors import ConversionError
from converter.install import recover
from converter.note import Note
from converter.places import Places
from converter.sources import Known

# What tells of a container that it, and what it has written, is not what it was.
_CONTAINER = ("Id", "Image", "Config", "HostConfig", "Mounts")
_STATE = ("Running", "Paused", "StartedAt", "FinishedAt")


def there(job: Job, known: Known) -> Outcome | None:
    """The outcome of a job whose machine is there: complete when it was made of the same with the same options; failed
    when it was not, and may not be replaced. None when it is to be made."""
    record = _record(job)
    if record is None:
        return None
    changes = [text for text, changed in _changes(job, record, known).items() if changed]
    if not changes:
        return _outcome(job, record, "complete")
    if job.options.force:
        return None
    tree = Places(job.options.root).tree(job.name)
    reason = f"{tree} exists, and is not what it would become now: {'; '.join(changes)}"
    remedy = "use --force to replace it, or another name"
    return Outcome(job.number, job.name, job.source, "failed", reason=reason, remedy=remedy)


def _changes(job: Job, record: Mapping[str, Any], known: Known) -> dict[str, bool]:
    """What may not be as it was when the machine was made, and whether it is not."""
    was, now = record.get("reference"), known.reference.full()
    return {
        f"it was made from {was}": was != now,
        f"its image was {record.get('digest')} and is {known.digest}": was == now
        and record.get("digest") != known.digest,
        "the Dockerfile or its context has changed": was == now and record.get("context") != known.context,
        "the container has changed or has run since": was == now
        and _container(record.get("container")) != _container(known.container),
        "the options were others": record.get("shape") != job.options.shape(),
    }


def made_by_this_batch(job: Job) -> Outcome | None:
    """The outcome of a job that this batch has done already, though nobody has heard of it."""
    if job.options.batch is None:
        return None
    record = _record(job)
    if record is None or record.get("batch") != job.options.batch:
        return None
    return _outcome(job, record, "done")


def _record(job: Job) -> Mapping[str, Any] | None:
    """The record of the machine of the job's name; None when it is not whole."""
    places = Places(job.options.root)
    if job.options.batch is not None:  # else nothing is to be written
        with suppress(ConversionError):  # the conversion will tell
            recover(places)
    try:
        if not (places.tree(job.name).is_dir() and places.settings(job.name).is_file()):
            return None
        record = json.loads(places.record(job.name).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _container(inspected: Any) -> Any:
    if not isinstance(inspected, Mapping):
        return None
    state = inspected.get("State") or {}
    return [*(inspected.get(key) for key in _CONTAINER), *(state.get(key) for key in _STATE)]


def _outcome(job: Job, record: Mapping[str, Any], state: State) -> Outcome:
    try:
        notes = tuple(Note(note["kind"], note["subject"], note["text"]) for note in record["notes"])
    except (LookupError, TypeError):  # it was not we who wrote it
        notes = ()
    tree = str(Places(job.options.root).tree(job.name))
    return Outcome(job.number, job.name, job.source, state, record.get("digest"), tree, notes)
