"""Making a base: bootstrap.sh, the script that does it, and a run of it.

The script's parts are the .sh files of this directory; what one base needs of them is put together here, under the few
settings that are its own.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from converter.dockerfile.bases import Base
from converter.dockerfile.bootstrap.settings import part, settings
from converter.dockerfile.model import ImageSource
from converter.dockerfile.quoting import data, printable
from converter.errors import ConversionError
from converter.image.model import this_platform
from converter.image.name import full_name
from converter.progress import Progress

_LAST_LINES = 40  # of what the script has printed, where a reason is looked for


def script(base: Base | ImageSource | None) -> str:
    """bootstrap.sh: a POSIX shell script that makes the base in the directory that is its one argument.

    An ImageSource: that image, through `docker2nspawn convert`. None: FROM scratch.
    """
    if base is None:
        return _text("scratch", "an empty tree.", None, "", part("scratch"))
    if isinstance(base, ImageSource):
        variables = {
            "image": full_name(base.name) or base.name,
            "platform": str(base.platform or this_platform()),
        }
        lines = "".join(f"{name}={data(value)}\n" for name, value in variables.items())
        return _text(base.name, "the image as it is, taken by docker2nspawn.", None, lines, part("image"))
    made = settings(base)
    lines = "".join(f"{name}={data(value)}\n" for name, value in made.variables.items()) + made.functions
    what = "made from the distribution's own packages, set up as the official image is."
    return _text(base.image, what, made.mirror, lines, made.make + made.image + made.end)


def _text(name: str, what: str, mirror: str | None, settings: str, body: str) -> str:
    text = f"#!/bin/sh\n# {printable(name)}: {what}\n#\n#   sh bootstrap.sh DIRECTORY\n#\n"
    text += "# As root; DIRECTORY is made, or is empty."
    if mirror is not None:
        text += f" MIRROR=URL is where the packages come\n# from, instead of {mirror}."
    text += "\nset -eu\numask 022\n\n"
    if mirror is not None:
        text += f"mirror=${{MIRROR:-{data(mirror)}}}\n"
    return text + settings + part("head") + body + part("tail")


def identity(base: Base, mirror: str | None = None) -> str:
    """What tells bases apart in a cache: two bases of the same identity are made in the same way.

    Not what the mirror has at the moment: as with an image that Docker has pulled, a base stays as it is until somebody
    asks for it anew.
    """
    content = f"{script(base)}\0{mirror or ''}"
    return f"{base.distribution}-{base.release}-{hashlib.sha256(content.encode()).hexdigest()}"


def make(base: Base, directory: Path, *, mirror: str | None, spool: Path, progress: Progress) -> None:
    """Make the base at `directory`, which does not exist or is empty. `spool` is for the script and its log.

    Raises ConversionError, in one line, when a program is missing or fails. What fails leaves nothing at `directory`.
    """
    if os.geteuid() != 0:
        raise ConversionError(f"FROM {base.image} can be made by root only; run docker2nspawn with sudo")
    path = spool / "bootstrap.sh"
    path.write_text(script(base))
    log = spool / "bootstrap.log"
    environment = dict(_environment())
    if mirror is not None:
        environment["MIRROR"] = mirror
    with log.open("wb") as output, progress.step(f"making {base.image}", None, "seconds"):
        running = subprocess.Popen(
            # The script ends, and takes away what it has begun, when we are gone.
            ["setpriv", "--pdeathsig", "TERM", "sh", path, directory.absolute()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            status = running.wait()
        except BaseException:
            _end(running)
            raise
    if status != 0:
        raise ConversionError(f"FROM {base.image} could not be made: {_reason(log)}")


def _environment() -> Iterator[tuple[str, str]]:
    """What of our environment the package managers need: the way to them and to the network."""
    for name, value in os.environ.items():
        if name in {"PATH", "TMPDIR"} or name.lower() in {
            "http_proxy",
            "https_proxy",
            "ftp_proxy",
            "no_proxy",
        }:
            yield name, value
    yield "LC_ALL", "C.UTF-8"


def _end(running: subprocess.Popen[bytes]) -> None:
    """End the script and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGTERM)
    try:
        running.wait(30)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _reason(log: Path) -> str:
    """The line of the script's output that says most about a failure, and what to do about it."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]]
    lines = [line for line in lines if line]
    for start in ("bootstrap.sh: ", "E: ", "error: ", "Error: ", "ERROR: "):
        for line in lines:
            if line.startswith(start):
                return _with_hint(line.removeprefix("bootstrap.sh: "))
    return _with_hint(lines[-1] if lines else "its package manager said nothing")


_HINTS: Mapping[str, str] = {
    "Could not resolve": "is there a network, and a name server for it?",
    "Temporary failure resolving": "is there a network, and a name server for it?",
    "Could not connect": "is there a network? MIRROR=URL names another mirror",
    "Unable to connect": "is there a network? MIRROR=URL names another mirror",
    "Failed getting release file": "is there a network, and this release at that mirror? MIRROR=URL names another",
    "Release' does not have": "this mirror does not have that release; MIRROR=URL names another",
    "404": "this mirror does not have that release; MIRROR=URL names another",
    "No space left": "make room and try again",
}


def _with_hint(line: str) -> str:
    for sign, hint in _HINTS.items():
        if sign in line:
            return f"{line}; {hint}"
    return line
