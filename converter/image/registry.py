"""Images of a registry, without Docker: the OCI distribution spec's pull side.

Written on requests, the Docker SDK's own HTTP stack: the Python clients that there are (oras 0.2, python-dxf 12)
neither go on with a broken layer (Range) nor bound what a registry may send by the size that the manifest promised.
https://github.com/opencontainers/distribution-spec; https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import ssl
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3

from converter.errors import ConversionError, NoRoomError, PassingError
from converter.image.access import (
    BUSY,
    Access,
    BusyError,
    causes,
    is_loopback,
    place,
    reason,
    status,
)
from converter.image.chain import known_diff_ids
from converter.image.layout import Extent, assemble
from converter.image.manifest import (
    ACCEPTED,
    MAX_DOCUMENT,
    Descriptor,
    check_digest,
    choose,
    is_index,
    parse_index,
    parse_manifest,
    verify,
)
from converter.image.model import Image, Platform
from converter.image.name import ImageName, parse_image_name
from converter.progress import Progress, Step

ATTEMPTS = 6  # in a row that got no further, network faults and busy registries counted together
MANIFEST_ATTEMPTS = 4  # fewer: a registry that never answered is likely misspelt
PAUSE = 0.5  # seconds before the second attempt; doubled each time
_LONGEST_PAUSE = 30.0
_CHUNK = 1 << 16
_MOST_NESTED = 8
_DIGITS = re.compile(r"[0-9]+")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_FAULTS = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)

Needed = Callable[[Sequence[str]], Collection[int]]
"""Tells, of an image with layers of these diff ids, the lowest first, the numbers of those that have to be read."""


def fetch(
    name: str,
    *,
    platform: Platform,
    spool: Path,
    progress: Progress,
    plain_http: bool = False,
    jobs: int = 4,
    needed: Needed | None = None,
) -> Image:
    """Fetch the image `name`, as Docker writes it, into the directory `spool`; `jobs` layers at a time.

    With `needed` only those layers whose numbers it returns when it is told all their diff ids; the others' files are
    not there.

    Plain HTTP is spoken on loopback, where HTTPS is not, or everywhere with `plain_http`. In `spool` there are
    afterwards only verified blobs, also after an error. Raises ConversionError when there is no such image, we
    may not have it, or what comes does not verify.
    """
    image = parse_image_name(name)
    if image.digest is not None:
        check_digest(image.digest)
    with contextlib.closing(_Client(image, plain_http=plain_http)) as client:
        try:
            return _fetch(client, image, platform, spool, progress, jobs, needed)
        except _FAULTS as error:
            raise PassingError(f"{image.domain}: {reason(error)}") from None
        except (requests.exceptions.RequestException, UnicodeError) as error:
            raise ConversionError(f"{image.domain}: {reason(error)}") from None


def _fetch(
    client: _Client,
    image: ImageName,
    platform: Platform,
    spool: Path,
    progress: Progress,
    jobs: int,
    needed: Needed | None,
) -> Image:
    data, digest = client.manifest(image.digest or image.tag or "latest")
    descriptor = Descriptor("", digest, len(data))
    for _ in range(_MOST_NESTED):
        if not is_index(descriptor, data):
            break
        descriptor = choose(parse_index(data), platform)
        data, _ = client.manifest(descriptor.digest)
        verify(data, descriptor)
    else:
        raise ConversionError(f"{image}: indexes are nested more than {_MOST_NESTED} deep")
    manifest = parse_manifest(data)
    if manifest.config.size > MAX_DOCUMENT:
        raise ConversionError(f"{image}: its config has {manifest.config.size} bytes, which is not sensible")
    with progress.step(f"asking for {image}", manifest.config.size) as step:
        path = _path(spool, manifest.config)
        client.blob(manifest.config, path, step)
        config = path.read_bytes()
    layers = [(Extent(_path(spool, layer), 0, layer.size), layer.digest) for layer in manifest.layers]
    # Before any layer is fetched: an image for Windows, or a damaged one, is refused at once.
    assembled = assemble(config, layers, digest=descriptor.digest, source=f"docker://{image}")
    numbers = range(len(layers)) if needed is None else needed(known_diff_ids(assembled))
    blobs = {blob.digest: blob for blob in (manifest.layers[number] for number in numbers)}
    total = sum(blob.size for blob in blobs.values())
    free = shutil.disk_usage(spool).free
    if total > free:
        raise NoRoomError(f"{image} has {total >> 20} MiB and {spool} {free >> 20} MiB free; make room first")
    if blobs:
        with progress.step(f"fetching {image}", total) as step:
            _fetch_all(client, tuple(blobs.values()), spool, step, jobs)
    return assembled


def _path(spool: Path, blob: Descriptor) -> Path:
    return spool / blob.digest.replace(":", "-")


def _fetch_all(client: _Client, blobs: Sequence[Descriptor], spool: Path, step: Step, jobs: int) -> None:
    pool = ThreadPoolExecutor(jobs, "fetch")
    try:
        running = [pool.submit(client.blob, blob, _path(spool, blob), step) for blob in blobs]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        client.stop()  # also on Ctrl-C
        pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """Another transfer failed, so this one gives up."""


class _Download:
    """A blob on its way into `file`: `done` bytes of it are there, and digested."""

    def __init__(self, blob: Descriptor, file: BinaryIO, step: Step) -> None:
        self.blob = blob
        self.done = 0
        self._file = file
        self._step = step
        self._found = hashlib.new(blob.digest.partition(":")[0])

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._found.update(chunk)
        self.done += len(chunk)
        self._step.advance(len(chunk))

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._found = hashlib.new(self._found.name)
        self._step.advance(-self.done)
        self.done = 0

    def digest(self) -> str:
        return f"{self._found.name}:{self._found.hexdigest()}"


class _Client:
    """One repository of one registry: where it is, and who we are to it. Blobs may be fetched by many threads."""

    def __init__(self, image: ImageName, *, plain_http: bool) -> None:
        self._image = image
        host = "registry-1.docker.io" if image.domain == "docker.io" else image.domain
        schemes = ["http"] if plain_http else ["https", "http"] if is_loopback(host) else ["https"]
        self._bases = [f"{scheme}://{host}" for scheme in schemes]
        self._access = Access(image.domain, image.path)
        self._stopped = threading.Event()
        self._running: set[requests.Response] = set()

    def stop(self) -> None:
        """End all transfers, those too that wait for a byte."""
        self._stopped.set()
        for response in tuple(self._running):
            # AttributeError: urllib3 before 2.3 cannot; the transfer then ends at its next byte or time-out.
            with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):
                response.raw.shutdown()

    def close(self) -> None:
        self._access.close()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and its digest, computed here."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        faults = 0
        while True:
            try:
                with self._get(f"/v2/{self._image.path}/manifests/{reference}", headers) as response:
                    data = _read(response)
                break
            except _FAULTS as error:
                faults += 1
                if faults >= MANIFEST_ATTEMPTS:
                    raise PassingError(
                        f"{self._image.domain} does not answer: {reason(error)}; try again later"
                    ) from None
                self._pause(faults, error)
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if ":" in reference and digest != reference:
            raise ConversionError(f"{self._image.domain} sent something else for {reference}: {digest}")
        return data, digest

    def blob(self, blob: Descriptor, path: Path, step: Step) -> None:
        """Fetch a blob into `path`, going on where the connection broke, until it is whole and verified."""
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                self._download(_Download(blob, file, step))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _download(self, download: _Download) -> None:
        wanted = download.blob.digest
        faults = furthest = corrupt = 0
        while True:
            try:
                self._receive(download)
            except _FAULTS as error:
                # Further than ever, not than last time: without Range it may break at one place for ever.
                faults = 1 if download.done > furthest else faults + 1
                furthest = max(furthest, download.done)
                if faults >= ATTEMPTS:
                    raise PassingError(
                        f"{wanted} does not come from {self._image.domain}: {reason(error)}; try again later"
                    ) from None
                self._pause(faults, error)
                continue
            found = download.digest()
            if found == wanted:
                return
            corrupt += 1
            if corrupt > 1:
                raise ConversionError(
                    f"{wanted} is corrupt at {self._image.domain}: what comes has the digest {found}"
                )
            download.restart()

    def _receive(self, download: _Download) -> None:
        """One request: the blob, or the rest of it. Raises one of _FAULTS when it is still not whole."""
        blob = download.blob
        headers = {"Range": f"bytes={download.done}-"} if download.done else {}
        with self._get(f"/v2/{self._image.path}/blobs/{blob.digest}", headers, blob) as response:
            expected = _expected(response, download)
            length = response.headers.get("Content-Length", "")
            if _DIGITS.fullmatch(length) and (len(length) > 18 or int(length) != expected):
                raise ConversionError(
                    f"{self._image.domain} announces {length[:20]} bytes for {blob.digest} instead of {expected}"
                )
            for chunk in _chunks(response):
                if self._stopped.is_set():
                    raise _StoppedError
                if download.done + len(chunk) > blob.size:
                    raise ConversionError(
                        f"{self._image.domain} sends more for {blob.digest} than its {blob.size} bytes"
                    )
                download.write(chunk)
        if download.done < blob.size:
            raise requests.exceptions.ConnectionError(f"only {download.done} of {blob.size} bytes came")

    def _pause(self, faults: int, error: Exception) -> None:
        seconds = PAUSE * 2 ** (faults - 1)
        if isinstance(error, BusyError) and error.seconds is not None:
            seconds = error.seconds
        if self._stopped.wait(min(seconds, _LONGEST_PAUSE)):
            raise _StoppedError

    @contextlib.contextmanager
    def _get(
        self, path: str, headers: Mapping[str, str], blob: Descriptor | None = None
    ) -> Iterator[requests.Response]:
        """A successful answer; to a Range, 416 is one too. Faults worth another attempt are among _FAULTS."""
        used = self._access.authorization
        response = self._ask(path, headers, used)
        try:
            if response.status_code == 401 and self._access.log_in(response, self._bases[0], used):
                response.close()
                response = self._ask(path, headers, self._access.authorization)
            if response.status_code in BUSY:
                raise BusyError(response)
            if response.status_code not in ({200, 206, 416} if "Range" in headers else {200, 206}):
                raise ConversionError(self._refusal(response, blob))
            self._running.add(response)
            if self._stopped.is_set():
                raise _StoppedError
            yield response
        finally:
            self._running.discard(response)
            response.close()

    def _ask(self, path: str, headers: Mapping[str, str], authorization: str | None) -> requests.Response:
        """Send the request; the first one finds out whether HTTPS is spoken, where HTTP is allowed too."""
        sent = {**headers, "Authorization": authorization} if authorization else dict(headers)
        while True:
            try:
                response = self._access.send("GET", self._bases[0] + path, sent)
            except requests.exceptions.ConnectionError as error:
                refused = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))
                if len(self._bases) > 1 and not refused:
                    self._bases.pop(0)
                    continue
                if refused:
                    raise ConversionError(
                        f"{self._image.domain}: {reason(error)}; put its CA into "
                        f"/etc/docker/certs.d/{self._image.domain}/ca.crt"
                    ) from None
                raise
            del self._bases[1:]
            return response

    def _refusal(self, response: requests.Response, blob: Descriptor | None) -> str:
        domain = self._image.domain
        if not self._access.is_from(response, self._bases[0]):
            return f"{self._image}: {domain} sends us on to {place(response.url)}, which answers {status(response)}"
        if response.status_code in {401, 403}:
            return self._access.refusal(str(self._image))
        if response.status_code == 404 and blob is not None and blob.urls:
            return (
                f"{self._image}: {domain} may not hand out its layer {blob.digest}, which is at {place(blob.urls[0])}; "
                f"docker pull {self._image} and convert docker-daemon:{self._image}"
            )
        if response.status_code == 404 and blob is not None:
            return f"{self._image}: {domain} lacks its blob {blob.digest}; push the image again"
        if response.status_code == 404:
            return f"{domain} has no {self._image}; check the name and the tag"
        return f"{domain} answered {status(response)} for {self._image}"


def _expected(response: requests.Response, download: _Download) -> int:
    """How many bytes the body must have. Starts `download` again where the registry does not go on as asked."""
    size = download.blob.size
    if response.status_code == 200:
        if download.done:
            download.restart()
        return size
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code == 206 and found and found[3] in {str(size), "*"}:
        first, last = int(found[1]), int(found[2])
        if first == download.done and first <= last < size:
            return last + 1 - first
    download.restart()
    raise requests.exceptions.ConnectionError(
        f"it answers {status(response)} with another range than asked for"
    )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it was sent: an encoding of the transfer would break size and digest."""
    yield from response.raw.stream(_CHUNK, decode_content=False)


def _read(response: requests.Response) -> bytes:
    data = b""
    for chunk in _chunks(response):
        data += chunk
        if len(data) > MAX_DOCUMENT:
            raise ConversionError(f"the manifest has more than the {MAX_DOCUMENT} bytes that are sensible")
    return data
