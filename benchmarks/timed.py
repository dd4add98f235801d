"""Runs one command and writes what it took; a program of its own, and small, because of what maxrss is.

Usage: timed.py RESULT COMMAND ARGUMENT…

A child's ru_maxrss starts at its parent's memory at the fork, so the parent has to be smaller than what it measures.
Nothing but built-in modules is imported for that reason.
"""

import os
import sys
import time


def main() -> None:
    """Start, wait, write "status wall cpu peak-kilobytes" to RESULT."""
    result, command = sys.argv[1], sys.argv[2:]
    start = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - start
    with open(result, "w") as file:  # noqa: PTH123 - pathlib costs two megabytes
        code = os.waitstatus_to_exitcode(status)
        file.write(f"{code} {wall} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}\n")


main()
