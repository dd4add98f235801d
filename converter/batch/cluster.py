"""A Dask cluster that does the jobs of a batch.

Dask is given bytes and `pickle.loads`, and to load them is to do the work: so the scheduler, which unpickles whatever
it is given, needs nothing of docker2nspawn. Events come back by a topic of the scheduler, one for all batches, because
it keeps the last thousand messages of a topic for ever. What has begun on a worker cannot be called back: each piece of
work asks first whether the batch still wants it.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from converter.batch.entry import UsageError
from converter.batch.model import Event
from converter.batch.work import split
from converter.errors import ConversionError

try:
    import distributed
    from distributed.comm.addressing import resolve_address
    from distributed.scheduler import KilledWorker
except ImportError:
    raise UsageError(
        None, "--scheduler needs Dask, which is not installed", "pip install 'docker2nspawn[cluster]'"
    ) from None

_PACKAGE = "docker2nspawn"  # also the topic
_CONNECTING = 8.0  # seconds until a scheduler has answered
_FIRST_WORKER = 10.0  # seconds until there is a worker
_NO_WORKER = 20.0  # seconds that a batch waits when all have gone
_LOOK = 1.0  # seconds between looks at who is there
_HEARD = 1.0  # seconds in which word of a beginning has come for sure
_CLOSING = 5.0  # seconds
_NOT_BEGUN = "not begun: {}"
_WITHOUT_WORD = "{}, and nobody told what became of it"
_AGAIN = "run the batch again with --resume"
_SAME = "install the same version of docker2nspawn on all"
_CALLED_OFF = "called off"  # comes back in place of a result


@contextmanager
def crew(address: str, listen: Callable[[Event], None], jobs: int | None) -> Iterator[Cluster]:
    """The workers of the cluster whose scheduler is at `address`, `jobs` of their threads at most; None: all.

    `listen` gets what they tell, in a thread. Raises ConversionError when there is no such scheduler, no worker, or one
    with another docker2nspawn than this.
    """
    with _quiet():
        client = _connected(address)
        try:
            workers = _workers(client, address)
            cluster = Cluster(client, address, listen, jobs, workers)
            try:
                yield cluster
            finally:
                cluster.close()
        finally:
            with suppress(Exception):  # it may be gone
                client.close(timeout=_CLOSING)


class Cluster:
    """The workers of a Dask cluster; a Crew."""

    def __init__(
        self,
        client: distributed.Client,
        address: str,
        listen: Callable[[Event], None],
        most: int | None,
        workers: dict[str, int],
    ) -> None:
        self._client = client
        self._address = address
        self._listen = listen
        self._most = most
        self._workers = workers  # the threads of each, by its address
        self._batch = uuid.uuid4().hex
        self._begun: set[str] = set()  # the marks of what was heard to begin
        self._under_way: dict[str, Future[Any]] = {}
        self._lost = ""  # why nothing can be done any more
        self._interrupted: float | None = None
        self._closing = threading.Event()
        self._off = distributed.Event(_flag(self._batch), client=client)
        self._dask = client.get_executor(pure=False)
        self._executor = _Executor(self.send)
        client.subscribe_topic(_PACKAGE, self._hear)
        self._watcher = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._watcher.start()

    @property
    def executor(self) -> Executor:
        return self._executor

    @property
    def jobs(self) -> int:
        """As many as all workers have threads now."""
        threads = sum(self._workers.values())
        return max(1, threads if self._most is None else min(threads, self._most))

    @property
    def tell(self) -> Callable[[Event], None]:
        return Teller(self._batch)

    def submitted(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        return partial(function, *arguments)

    def interrupt(self) -> None:
        """What has begun is brought to its end; what has not begun never does."""
        if self._interrupted is None:
            self._interrupted = time.monotonic()
            with suppress(OSError):  # nobody reads
                sys.stderr.write(
                    "docker2nspawn: what workers have begun is finished first; nothing more is begun\n"
                )
            with suppress(Exception):  # the scheduler may be gone, which shows elsewhere
                self._off.set()
        elif time.monotonic() - self._interrupted > _HEARD:
            for mark, future in tuple(self._under_way.items()):
                if mark not in self._begun:
                    future.cancel()

    def renew(self) -> None:
        """Nothing is broken by a worker that dies: Dask has others do its work."""

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Nobody waits for it: a worker may be busy, and its disk slow."""
        if not self._gone():
            with suppress(Exception):  # a worker may go away
                self._client.run(_beside, function, *arguments, wait=False, on_error="ignore")

    def send(self, work: Callable[[], Any]) -> Future[Any]:
        """Have it done by a worker."""
        future: Future[Any] = Future()
        if reason := self._gone(_NOT_BEGUN):
            future.set_exception(ConversionError(reason))
            return future
        mark = uuid.uuid4().hex
        sealed = _Sealed(version(_PACKAGE), self._batch, mark, pickle.dumps(work))
        try:
            sent = self._dask.submit(pickle.loads, pickle.dumps(sealed), key=f"{_PACKAGE}-{mark}")
        except Exception as error:  # it has gone this very moment
            future.set_exception(ConversionError(self._gone(_NOT_BEGUN) or str(error)))
            return future
        self._under_way[mark] = sent
        sent.add_done_callback(partial(self._done, mark, future))
        return future

    def close(self) -> None:
        """Forget what is under way."""
        self._closing.set()
        self._watcher.join(_CLOSING)
        if self._client.status == "running":
            with suppress(Exception):  # it may be gone by now
                self._client.unsubscribe_topic(_PACKAGE)
                self._dask.shutdown(wait=False)
                if self._interrupted is not None:
                    self._off.clear()

    def _done(self, mark: str, future: Future[Any], sent: Future[Any]) -> None:
        """Take over what came of it, in the words of a batch."""
        self._under_way.pop(mark, None)
        try:
            result = sent.result()
        except CancelledError:
            reason = self._gone(_WITHOUT_WORD)
            if not reason and self._interrupted is not None:
                _cancel(future)
            else:
                reason = reason or f"Dask cancelled it, perhaps because the cluster was restarted; {_AGAIN}"
                future.set_exception(ConversionError(reason))
        except Exception as error:
            future.set_exception(self._in_words(error))
        else:
            if result == _CALLED_OFF:
                _cancel(future)
            else:
                future.set_result(result)

    def _gone(self, when: str = "{}") -> str:
        """`when` with the reason why nobody does anything any more; "" while all is well."""
        if not self._lost and self._client.status != "running":
            self._lost = f"the Dask scheduler at {self._address} went away; {_AGAIN}"
        why, remedy = split(self._lost)
        return f"{when.format(why)}; {remedy}" if self._lost else ""

    def _in_words(self, error: Exception) -> Exception:
        if isinstance(error, KilledWorker):
            return ConversionError(
                f"{error.allowed_failures + 1} workers died of it, the last {error.last_worker.address}; "
                "see their logs, and dmesg for want of memory"
            )
        if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "converter":
            error = _OtherVersion(f"a worker lacks docker2nspawn; {_SAME}")
        if isinstance(error, _OtherVersion):  # it would take all the work, and do none
            self._lost = self._lost or str(error)
        return error

    def _hear(self, event: tuple[float, tuple[str, str | bytes]]) -> None:
        batch, said = event[1]
        if batch == self._batch and isinstance(said, bytes):
            self._listen(pickle.loads(said))
        elif batch == self._batch:
            self._begun.add(str(said))

    def _watch(self) -> None:
        """Follow who comes and goes, until there is no cluster any more."""
        seen = set(self._workers)
        somebody = time.monotonic()
        while not self._closing.wait(_LOOK) and self._client.status == "running":
            with suppress(Exception):  # somebody goes away this very moment, which the next look shows
                self._workers = self._client.nthreads()
                new = self._workers.keys() - seen
                self._lost = self._lost or (_fault(self._client, new) if new else "")
                seen |= new
            if self._workers:
                somebody = time.monotonic()
            elif time.monotonic() - somebody > _NO_WORKER:
                self._lost = f"all workers of the Dask cluster at {self._address} went away; {_AGAIN}"
                for future in tuple(self._under_way.values()):
                    future.cancel()


class _Executor(Executor):
    def __init__(self, send: Callable[[Callable[[], Any]], Future[Any]]) -> None:
        self._send = send

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._send(partial(fn, *args, **kwargs))


def _cancel(future: Future[Any]) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()  # only that wakes who waits for it


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs and warns of is said by us, in one line."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _connected(address: str) -> distributed.Client:
    try:
        resolve_address(address)  # first, because a Client takes long to be rid of
        return distributed.Client(address, timeout=_CONNECTING, set_as_default=False, name=_PACKAGE)
    except (OSError, ValueError, ImportError) as error:
        reason = "nobody answers there" if isinstance(error, OSError) else str(error)
        raise ConversionError(
            f"no Dask scheduler at {address}: {reason}; start one with `dask scheduler`, and give its address "
            "(tcp://HOST:8786)"
        ) from None


def _workers(client: distributed.Client, address: str) -> dict[str, int]:
    """The workers' addresses with their threads, when there are some and all are fit."""
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER)
        workers = dict(client.nthreads())
        fault = _fault(client, workers)
    except TimeoutError:
        raise ConversionError(
            f"the Dask cluster at {address} has no workers; start some: dask worker {address} --nthreads 1"
        ) from None
    except OSError:
        raise ConversionError(f"the Dask scheduler at {address} went away; run this again") from None
    if fault:
        raise ConversionError(fault)
    return workers


def _fault(client: distributed.Client, workers: Collection[str]) -> str:
    """What is wrong with the docker2nspawn of these workers; "" when nothing is."""
    own = version(_PACKAGE)
    found = client.run(version, _PACKAGE, workers=list(workers), on_error="return")
    for worker, answer in found.items():
        if isinstance(answer, PackageNotFoundError):
            return f"worker {worker} lacks docker2nspawn, and this is {own}; {_SAME}"
        if isinstance(answer, str) and answer != own:
            return f"worker {worker} has docker2nspawn {answer}, and this is {own}; {_SAME}"
    return ""


def _flag(batch: str) -> str:
    """The name of the Dask Event that is set when a batch is called off."""
    return f"{_PACKAGE}-{batch}"


# --- on a worker ----------------------------------------------------------------------------------------------


class Teller:
    """Tells a batch of an event, from any thread of a task once the task's own has told of one."""

    def __init__(self, batch: str) -> None:
        self._batch = batch

    def __call__(self, event: Event) -> None:
        self._worker.log_event(_PACKAGE, (self._batch, pickle.dumps(event)))

    @cached_property
    def _worker(self) -> distributed.Worker:
        return distributed.get_worker()


class _OtherVersion(ConversionError):
    """The work was sent by another version of docker2nspawn."""


class _Sealed:
    """Work that is done when it is unpickled: `work` is pickled itself, so that its classes are not looked for before
    the version is known to be the same."""

    def __init__(self, version: str, batch: str, mark: str, work: bytes) -> None:
        self._arguments = (version, batch, mark, work)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str, str, bytes]]:
        return _do, self._arguments


def _do(sent_by: str, batch: str, mark: str, work: bytes) -> Any:
    worker = distributed.get_worker()
    if (own := version(_PACKAGE)) != sent_by:
        raise _OtherVersion(
            f"worker {worker.address} has docker2nspawn {own}, and this is {sent_by}; {_SAME}"
        )
    if distributed.Event(_flag(batch), client=distributed.get_client()).is_set():
        return _CALLED_OFF
    worker.log_event(_PACKAGE, (batch, mark))
    return pickle.loads(work)()


async def _beside(function: Callable[..., Any], *arguments: Any) -> None:
    """Call it in a thread of its own: the worker's threads may be busy, and its event loop must not be."""
    await asyncio.to_thread(function, *arguments)
