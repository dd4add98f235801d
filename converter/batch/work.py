"""What is done for one job, by whichever process or host has been given it: looked at, shared with others, converted.

Nothing here raises what the job may be to blame for: that is in what is returned.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from converter import conversion, interrupt, sources
from converter.batch import earlier
from converter.batch.model import Event, Job, Outcome
from converter.batch.progress import Told
from converter.cache.prune import trim
from converter.errors import AddressTakenError, ConversionError, NoRoomError, PassingError
from converter.install import staging
from converter.places import Places
from converter.result import Result
from converter.sharing import Shared

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Look:
    """What is known of a job's image before it is converted: nothing when it could not be told.

    `seen`: it could be told. `there`: the machine is there already, and this is the job's outcome.
    """

    number: int
    seen: bool = False
    digest: str | None = None
    diff_ids: tuple[str, ...] = ()
    there: Outcome | None = None


def look(job: Job, resume: bool) -> Look:
    """Find out which layers a job's image has, and with `resume` whether its machine is there and unchanged."""
    interrupt.in_time()
    try:
        known = _known(job)
        there = earlier.there(job, known) if resume else None
        return Look(job.number, True, known.digest, known.diff_ids, there)
    except (ConversionError, OSError):  # the conversion will tell
        return Look(job.number)
    finally:
        interrupt.too_late()


def _known(job: Job) -> sources.Known:
    if sources.takes_room(job.reference):
        with staging(Places(job.options.root)) as stage:
            return sources.look(job.reference, job.options, stage.spool)
    with tempfile.TemporaryDirectory(prefix="docker2nspawn-") as spool:
        return sources.look(job.reference, job.options, Path(spool))


def share(job: Job, shared: Shared, name: str, tell: Tell) -> bool:
    """Make what this job's image has in common with others, before they need it; False when it does not work out."""
    worker = _worker()
    tell(Event("begun", -1, name, worker=worker))
    try:
        conversion.share(job.reference, job.options, Told(tell, -1, name, worker), shared)
    except (ConversionError, OSError):  # each of them will find out
        return False
    finally:
        interrupt.too_late()
        tell(Event("ended", -1, name, worker=worker))
    return True


def convert(job: Job, shared: Shared, tell: Tell, resume: bool = False) -> Outcome:
    """Make the job's machine; with `resume` unless it is there and unchanged, which could not be told before."""
    return _done(job, tell, lambda told: _converted(job, shared, resume, told))


def plan(job: Job, tell: Tell) -> Outcome:
    """Decide everything, and write nothing."""
    return _done(job, tell, lambda told: _planned(job, told))


def _converted(job: Job, shared: Shared, resume: bool, told: Told) -> Outcome:
    if (made := earlier.made_by_this_batch(job)) is not None:  # by somebody who did not live to tell
        return made
    if resume and (there := earlier.there(job, _known(job))) is not None:
        return there
    try:
        try:
            result = _made(job, shared, told)
        except NoRoomError:
            if not trim(Places(job.options.root).trees, 0):
                raise
            result = _made(job, None, told)
    except ConversionError:
        if (made := earlier.made_by_this_batch(job)) is not None:  # by somebody else, taken for dead
            return made
        raise
    return replace(
        _outcome(job), state="done", digest=result.digest, tree_path=result.tree_path, notes=result.notes
    )


def _made(job: Job, shared: Shared | None, told: Told) -> Result:
    while True:
        try:
            return conversion.convert(job.reference, job.options, told, shared)
        except AddressTakenError:  # by another job, just now; there are many more
            continue


def _planned(job: Job, told: Told) -> Outcome:
    result = conversion.plan(job.reference, job.options, told)
    return replace(
        _outcome(job), state="planned", digest=result.digest, tree_path=result.tree_path, notes=result.notes
    )


def _done(job: Job, tell: Tell, work: Callable[[Told], Outcome]) -> Outcome:
    worker = _worker()
    begun = time.monotonic()
    tell(Event("begun", job.number, job.name, worker=worker))
    told = Told(tell, job.number, job.name, worker)
    interrupt.in_time()
    try:
        outcome = work(told)
    except ConversionError as error:
        reason, remedy = split(str(error))
        outcome = replace(
            _outcome(job),
            reason=reason,
            remedy=remedy,
            passing=isinstance(error, PassingError),
            no_room=isinstance(error, NoRoomError),
        )
    except interrupt.Interrupted:
        outcome = replace(_outcome(job), state="interrupted", reason="interrupted; nothing was installed")
    except Exception as error:  # one image's failure, also by our own fault, is not the others'
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        reason = f"docker2nspawn itself failed at {place}: {type(error).__name__}: {str(error)[:300]}"
        outcome = replace(_outcome(job), reason=reason, remedy="please report this")
    finally:
        interrupt.too_late()
    return replace(outcome, seconds=time.monotonic() - begun, size=told.bytes, worker=worker)


def _outcome(job: Job) -> Outcome:
    return Outcome(job.number, job.name, job.source, "failed")


def split(message: str) -> tuple[str, str]:
    """What is wrong, and what to do about it: messages have the latter after a semicolon."""
    reason, separator, remedy = message.rpartition("; ")
    return (reason, remedy) if separator else (message, "")


def _worker() -> str:
    if "distributed" in sys.modules:  # else this is no worker of a Dask cluster, and it takes long to load
        from distributed import get_worker

        with suppress(ValueError):
            return str(get_worker().name)
    return socket.gethostname()
