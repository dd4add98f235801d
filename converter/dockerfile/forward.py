"""A socket that leads to the user's ssh agent, with the owner and mode that RUN --mount=type=ssh asks for."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 16


@contextlib.contextmanager
def forwarded(agent: Path, directory: Path, *, owner: tuple[int, int], mode: int) -> Iterator[Path]:
    """A new socket in the empty `directory`, meanwhile; who connects to it speaks to the socket `agent`.

    Raises OSError.
    """
    listener = socket.socket(socket.AF_UNIX)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name = f"/proc/self/fd/{fd}/agent"  # an address takes 107 bytes only
        listener.bind(name)
        os.chown(name, *owner)
        Path(name).chmod(mode)
        listener.listen()
        threading.Thread(target=_serve, args=(listener, agent), daemon=True).start()
        yield directory / "agent"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        os.close(fd)


def _serve(listener: socket.socket, agent: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # closed
            return
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(agent))
        except OSError:
            client.close()
            server.close()
            continue
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
