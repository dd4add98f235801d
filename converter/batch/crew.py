"""Who does the jobs of a batch: what `run` asks of the processes of this host, or of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Protocol

from converter.batch.model import Event


class Crew(Protocol):
    """An executor, and what the standard interface does not have. What is submitted can be pickled."""

    @property
    def executor(self) -> Executor:
        """Where work is submitted; another one after `renew`."""

    @property
    def jobs(self) -> int:
        """How much it does at a time."""

    @property
    def tell(self) -> Callable[[Event], None]:
        """What the work is given to tell of itself; it can be pickled."""

    def submitted(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """What to submit to have `function` called."""

    def interrupt(self) -> None:
        """Have what is being done now taken back, or brought to its end where that is near."""

    def renew(self) -> None:
        """Begin again after somebody died, so that the executor is broken. What it was doing is lost."""

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function` wherever jobs have been done, whatever comes of it."""
