"""`docker2nspawn batch`, from the list to the exit status."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from converter.batch import local
from converter.batch.crew import Crew
from converter.batch.entry import Entries, UsageError
from converter.batch.jobs import jobs_of
from converter.batch.listing import read_list
from converter.batch.live import show
from converter.batch.model import Event, Job, Outcome, Summary
from converter.batch.report_files import as_json, check_report, write_report
from converter.batch.run import Rules, run
from converter.batch.selecting import select
from converter.batch.summary import print_summary
from converter.batch.work import split
from converter.cache.prune import LIMIT, trim
from converter.errors import ConversionError
from converter.options import Options
from converter.places import Places

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for. `jobs` None: as many as fit this host. `cache_size` is in bytes."""

    source: str | None
    options: Options
    all_containers: bool = False
    all_images: bool = False
    labels: tuple[str, ...] = ()
    jobs: int | None = None
    scheduler: str | None = None
    reports: tuple[Path, ...] = ()
    as_json: bool = False
    cache_size: int = LIMIT
    rules: Rules = field(default_factory=Rules)


def batch(wanted: Wanted) -> int:
    """Do all that the list asks for, and report; the exit status: 0 all done, 1 some failed, 130 interrupted.

    Raises UsageError, before anything is done, when the list or an option cannot be meant; ConversionError when the
    Docker daemon, the cluster or a report cannot be reached or written.
    """
    for path in wanted.reports:
        check_report(path)
    entries = _entries(wanted)
    asked = jobs_of(entries, wanted.options)
    mark = None if wanted.rules.dry_run else uuid.uuid4().hex  # of what nobody makes there is no record
    jobs = [replace(job, options=replace(job.options, batch=mark)) for job in asked.jobs]
    messages = list(asked.messages)
    for message in messages:
        sys.stderr.write(f"docker2nspawn: {message}\n")
    with _stopping() as stop:
        summary = _done(wanted, jobs, asked.failed, tuple(messages), stop)
        errors = [error for path in wanted.reports if (error := _written(summary, path)) is not None]
        if wanted.as_json:
            sys.stdout.write(as_json(summary))
        else:
            print_summary(summary, wanted.reports[0] if wanted.reports and not errors else None)
        if errors:
            sys.stdout.flush()
            raise errors[0]
    if stop.is_set() and not summary.good:
        return 130
    return 0 if summary.good else 1


def _written(summary: Summary, path: Path) -> ConversionError | None:
    """Write a report; why it could not be written, which is no reason not to tell of the batch."""
    try:
        write_report(summary, path)
    except ConversionError as error:
        return error
    return None


def _done(
    wanted: Wanted,
    jobs: Sequence[Job],
    failed: Sequence[Outcome],
    messages: tuple[str, ...],
    stop: threading.Event,
) -> Summary:
    """Do the jobs. Those that `failed` are of sources that mean nothing."""
    started = time.time()
    with show(len(jobs) + len(failed)) as screen:
        failed = [_with_remedy(outcome) for outcome in failed]
        for outcome in failed:
            screen.event(Event("ended", outcome.number, outcome.name or outcome.source, outcome=outcome))
        with _crew(wanted, jobs, screen.event) as crew:
            done = run(jobs, crew, wanted.rules, screen.event, stop.is_set)
            at_a_time = crew.jobs
            if not wanted.rules.dry_run:
                for root in {job.options.root for job in jobs}:
                    crew.everywhere(trim, Places(root).trees, wanted.cache_size)
    return Summary(
        outcomes=tuple(sorted((*done, *failed), key=lambda outcome: outcome.number)),
        version=version("docker2nspawn"),
        host=socket.gethostname(),
        root=str(wanted.options.root),
        started=started,
        ended=time.time(),
        jobs=at_a_time,
        interrupted=stop.is_set(),
        messages=messages,
    )


def _entries(wanted: Wanted) -> Entries:
    """What the list says, and then what the daemon has."""
    selects = wanted.all_containers or wanted.all_images or bool(wanted.labels)
    if wanted.source is None and not selects:
        raise UsageError(None, "there is no LIST", "give one, or --all-containers, --all-images or --label")
    found = read_list(wanted.source) if wanted.source is not None else Entries(())
    if selects:
        more = select(containers=wanted.all_containers, images=wanted.all_images, labels=wanted.labels)
        found = Entries((*found.entries, *more.entries), (*found.messages, *more.messages))
    return found


def _with_remedy(outcome: Outcome) -> Outcome:
    reason, remedy = split(outcome.reason)
    return replace(outcome, reason=reason, remedy=remedy)


def _crew(
    wanted: Wanted, jobs: Sequence[Job], listen: Callable[[Event], None]
) -> AbstractContextManager[Crew]:
    if wanted.scheduler is not None:
        from converter.batch import cluster  # here, because distributed is an optional extra

        return cluster.crew(wanted.scheduler, listen, wanted.jobs)
    number = min(wanted.jobs or local.default_jobs(), max(1, len(jobs)))
    return local.crew(number, listen, _modules({job.reference.transport for job in jobs}))


def _modules(transports: set[str]) -> tuple[str, ...]:
    """What takes long to load and will be needed."""
    modules = []
    if transports & {"docker-daemon", "container", "image"}:
        modules.append("converter.image.daemon")
    if "dockerfile" in transports:
        modules.append("converter.building")
    return tuple(modules)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """While this lasts, a signal sets the event and does nothing else."""
    stop = threading.Event()

    def on_signal(_: int, __: FrameType | None) -> None:
        stop.set()

    before = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            before[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
