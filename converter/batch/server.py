"""Loaded by the process that forks those who do the jobs, before all else and nowhere else: no signal ends it.

A terminal or systemd sends a signal to all processes of a batch at once. Without that process nobody could tell the
main one any more how the others end. It ends by itself, after them. Until now these signals were blocked (local.py).
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_SERVER = os.getpid()
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _on_terminate(number: int, _: FrameType | None) -> None:
    """Ends one that has been forked and has not begun; from then on local.py says what a signal does."""
    if os.getpid() != _SERVER:
        os._exit(128 + number)


signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, _on_terminate)
signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
