"""Debian's docker-registry on loopback, over a directory of the cache; images pushed into it by its own API."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

from benchmarks.image import TAG, Blob
from benchmarks.measure import Failed

_PATIENCE = 30  # seconds


@contextlib.contextmanager
def serving(storage: Path, scratch: Path) -> Iterator[str]:
    """Serve what `storage` holds, which may be empty yet; the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = scratch / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (scratch / "registry.log").open("wb") as log:
        started = subprocess.Popen(
            ["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(address, started)
        yield address
    finally:
        started.terminate()
        started.wait()


def _wait(address: str, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"http://{address}/v2/", timeout=_PATIENCE).raise_for_status()
            return
        time.sleep(0.1)
    raise Failed("docker-registry does not answer")


class Pusher:
    """Pushes images; a blob that the registry has in any repository is not sent again."""

    def __init__(self, address: str) -> None:
        self._base = f"http://{address}"
        self._session = requests.Session()
        self._held: dict[str, str] = {}

    def push(self, repository: str, blobs: Sequence[Blob], manifest: Blob) -> None:
        """An image under the usual tag; `blobs` are its config and its layers."""
        for blob in blobs:
            self._blob(repository, blob)
        self._session.put(
            f"{self._base}/v2/{repository}/manifests/{TAG}",
            data=manifest.path.read_bytes(),
            headers={"Content-Type": manifest.media_type},
            timeout=_PATIENCE,
        ).raise_for_status()

    def _blob(self, repository: str, blob: Blob) -> None:
        url = f"{self._base}/v2/{repository}/blobs/uploads/"
        mount = {"mount": blob.digest, "from": self._held[blob.digest]} if blob.digest in self._held else {}
        begun = self._session.post(url, params=mount, timeout=_PATIENCE)
        begun.raise_for_status()
        if begun.status_code == requests.codes.accepted:
            with blob.path.open("rb") as data:
                self._session.put(
                    begun.headers["Location"],
                    params={"digest": blob.digest},
                    data=data,
                    headers={"Content-Type": "application/octet-stream"},
                    timeout=_PATIENCE,
                ).raise_for_status()
        self._held[blob.digest] = repository
