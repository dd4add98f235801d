"""What is there already: machines that an earlier run, or somebody who was killed, has made of the same things.

Each machine has its record, which is installed with it or not at all; no other memory is kept of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from converter.batch.model import Job, Outcome, State
from converter.note import Note
from converter.places import Places
from converter.sources import Known

# What tells of a container that it, and what it has written, is not what it was.
_CONTAINER = ("Id", "Image", "Config", "HostConfig", "Mounts")
_STATE = ("Running", "Paused", "StartedAt", "FinishedAt")


def complete(job: Job, known: Known) -> Outcome | None:
    """The outcome of a job whose machine is complete, and made of the same digest with the same options."""
    record = _record(job)
    if record is None or record.get("shape") != job.options.shape():
        return None
    same = (
        record.get("reference") == known.reference.full()
        and record.get("digest") == known.digest
        and record.get("context") == known.context
        and _container(record.get("container")) == _container(known.container)
    )
    return _outcome(job, record, "complete") if same else None


def made_by_this_batch(job: Job) -> Outcome | None:
    """The outcome of a job that this batch has done already, though nobody has heard of it."""
    record = _record(job)
    if record is None or job.options.batch is None or record.get("batch") != job.options.batch:
        return None
    return _outcome(job, record, "done")


def _record(job: Job) -> Mapping[str, Any] | None:
    """The record of the machine of the job's name; None when it is not whole."""
    places = Places(job.options.root)
    if not (places.tree(job.name).is_dir() and places.settings(job.name).is_file()):
        return None
    try:
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
    notes = tuple(Note(note["kind"], note["subject"], note["text"]) for note in record.get("notes", ()))
    tree = str(Places(job.options.root).tree(job.name))
    return Outcome(job.number, job.name, job.source, state, record.get("digest"), tree, notes)
