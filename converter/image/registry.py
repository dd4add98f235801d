"""Images of a registry, without Docker: the OCI distribution spec's pull side.

Written on requests, the Docker SDK's own HTTP stack: the Python clients that there are (oras, python-dxf) neither
go on with a broken layer (Range) nor bound what a registry may send by the size that the manifest promised.
https://github.com/opencontainers/distribution-spec; https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import requests
import urllib3

from converter.errors import ConversionError
from converter.image.credentials import Login, find_login
from converter.image.layout import Extent, assemble
from converter.image.manifest import (
    ACCEPTED,
    MAX_DOCUMENT,
    Descriptor,
    choose,
    is_index,
    parse_index,
    parse_json,
    parse_manifest,
    verify,
)
from converter.image.model import Image, Platform
from converter.image.name import ImageName, parse_image_name
from converter.progress import Progress, Step

ATTEMPTS = 6  # in a row without a byte, network faults and busy registries counted together
MANIFEST_ATTEMPTS = 4  # fewer: a registry that never answered is likely misspelt
PAUSE = 0.5  # seconds before the second attempt; doubled each time
_LONGEST_PAUSE = 30.0
_TIMEOUT = (10, 60)  # seconds to connect, and without a byte
_CHUNK = 1 << 20
_MOST_NESTED = 8
_AUTH_PARAMETER = re.compile(r'([a-zA-Z]+)="((?:[^"\\]|\\.)*)"')
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_FAULTS = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)


def fetch(
    name: str,
    *,
    platform: Platform,
    spool: Path,
    progress: Progress,
    plain_http: bool = False,
    jobs: int = 4,
) -> Image:
    """Fetch the image `name`, as Docker writes it, into the directory `spool`; `jobs` layers at a time.

    Plain HTTP is spoken on loopback, where HTTPS does not answer, or everywhere with `plain_http`.
    Raises ConversionError when there is no such image, we may not have it, or what comes does not verify.
    """
    image = parse_image_name(name)
    client = _Client(image, plain_http=plain_http)
    try:
        return _fetch(client, image, platform, spool, progress, jobs)
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
        raise ConversionError(f"{image.domain}: {_reason(error)}") from None


def _fetch(
    client: _Client, image: ImageName, platform: Platform, spool: Path, progress: Progress, jobs: int
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
    blobs = {layer.digest: layer for layer in (manifest.config, *manifest.layers)}
    label = f"fetching {image}"
    with progress.step(label, sum(blob.size for blob in blobs.values())) as step:
        paths = _fetch_all(client, blobs, spool, step, jobs)
    layers = [(Extent(paths[d.digest], 0, d.size), d.digest) for d in manifest.layers]
    config = paths[manifest.config.digest].read_bytes()
    return assemble(config, layers, digest=descriptor.digest, source=f"docker://{image}")


def _fetch_all(
    client: _Client, blobs: Mapping[str, Descriptor], spool: Path, step: Step, jobs: int
) -> dict[str, Path]:
    stop = threading.Event()
    paths = {digest: spool / digest.replace(":", "-") for digest in blobs}
    pool = ThreadPoolExecutor(jobs, "fetch")
    try:
        running = [pool.submit(client.blob, blob, paths[blob.digest], step, stop) for blob in blobs.values()]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        stop.set()  # also on Ctrl-C: the others give up at their next chunk
        pool.shutdown(cancel_futures=True)
    return paths


class _StoppedError(Exception):
    """Another transfer failed, so this one gives up."""


class _Client:
    """One repository of one registry: where it is, and who we are to it."""

    def __init__(self, image: ImageName, *, plain_http: bool) -> None:
        self._image = image
        host = "registry-1.docker.io" if image.domain == "docker.io" else image.domain
        schemes = ["http"] if plain_http else ["https", "http"] if _is_loopback(host) else ["https"]
        self._bases = [f"{scheme}://{host}" for scheme in schemes]
        self._login: Login | None = None
        self._login_known = False
        self._authorization: str | None = None
        self._lock = threading.Lock()
        self._local = threading.local()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest or index by tag or digest, and its digest, computed here."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        fault: Exception | None = None
        for attempt in range(MANIFEST_ATTEMPTS):
            _pause(attempt, fault)
            try:
                with self._get(f"/v2/{self._image.path}/manifests/{reference}", headers) as response:
                    data = _read(response, MAX_DOCUMENT)
                break
            except _FAULTS as error:
                fault = error
        else:
            raise ConversionError(f"{self._image.domain} does not answer: {_reason(fault)}; try again later")
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        if algorithm not in {"sha256", "sha512"}:
            raise ConversionError(f"digests of the kind {algorithm} cannot be verified; use sha256")
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if ":" in reference and digest != reference:
            raise ConversionError(f"{self._image.domain} sent something else for {reference}: {digest}")
        return data, digest

    def blob(self, blob: Descriptor, path: Path, step: Step, stop: threading.Event) -> None:
        """Fetch a blob into `path`, going on where the connection broke, until it is whole and verified."""
        partial = path.with_suffix(".partial")
        done = 0
        found = hashlib.new(blob.digest.partition(":")[0])
        fault: Exception | None = None
        restarts = 0
        attempt = 0
        while attempt < ATTEMPTS:
            _pause(attempt, fault, stop)
            attempt += 1
            headers = {"Range": f"bytes={done}-"} if done else {}
            before = done
            try:
                with self._get(f"/v2/{self._image.path}/blobs/{blob.digest}", headers) as response:
                    if done and not _continues(response, done):
                        step.advance(-done)
                        done, before, found = 0, 0, hashlib.new(found.name)
                    with partial.open("r+b" if done else "wb") as file:
                        file.seek(done)
                        for chunk in _chunks(response):
                            if stop.is_set():
                                raise _StoppedError
                            done += len(chunk)
                            if done > blob.size:
                                raise ConversionError(
                                    f"{self._image.domain} sends more for {blob.digest} than its {blob.size} bytes"
                                )
                            file.write(chunk)
                            found.update(chunk)
                            step.advance(len(chunk))
                if done < blob.size:
                    fault = requests.exceptions.ConnectionError(f"only {done} of {blob.size} bytes came")
                    continue
            except _FAULTS as error:
                fault = error
                if done > before:
                    attempt = 0  # it goes on; only standing still counts
                continue
            if found.hexdigest() == blob.digest.partition(":")[2]:
                partial.replace(path)
                return
            restarts += 1
            if restarts > 1:
                raise ConversionError(
                    f"{blob.digest} is corrupt at {self._image.domain}: what comes has the digest {found.hexdigest()}"
                )
            step.advance(-done)
            done, found = 0, hashlib.new(found.name)
        raise ConversionError(
            f"{blob.digest} does not come from {self._image.domain}: {_reason(fault)}; try again later"
        )

    @contextlib.contextmanager
    def _get(self, path: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """A successful answer. Faults worth another attempt are raised as requests raises them."""
        response = self._ask(path, headers)
        try:
            if response.status_code == 401 and self._answer_challenge(response):
                response.close()
                response = self._ask(path, headers)
            if response.status_code in _BUSY:
                raise _BusyError(response)
            if response.status_code not in {200, 206}:
                raise ConversionError(self._refusal(response))
            yield response
        finally:
            response.close()

    def _ask(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        """Send the request, by HTTP where HTTPS does not answer and HTTP is allowed."""
        while True:
            sent = {**headers, "Accept-Encoding": "identity"}
            if self._authorization is not None:
                sent["Authorization"] = self._authorization
            try:
                return self._session().get(self._bases[0] + path, headers=sent, stream=True, timeout=_TIMEOUT)
            except requests.exceptions.ConnectionError as error:
                with self._lock:
                    if len(self._bases) > 1 and self._bases[0].startswith("https:"):
                        self._bases.pop(0)
                        continue
                if isinstance(error, requests.exceptions.SSLError):
                    raise ConversionError(
                        f"{self._image.domain}: {_reason(error)}; put its CA into "
                        f"/etc/docker/certs.d/{self._image.domain}/ca.crt, or use --plain-http"
                    ) from None
                raise
            except (requests.exceptions.InvalidURL, requests.exceptions.TooManyRedirects) as error:
                raise ConversionError(f"{self._image.domain}: {_reason(error)}") from None

    def _session(self) -> requests.Session:
        """One session for each thread: requests' own are not made for sharing."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.headers["User-Agent"] = "docker2nspawn"
            session.trust_env = True
            session.auth = _no_netrc
            session.max_redirects = 10
            directory = Path("/etc/docker/certs.d", self._image.domain)
            for authority in sorted(directory.glob("*.crt")):
                session.verify = str(authority)
            for certificate in sorted(directory.glob("*.cert")):
                session.cert = (str(certificate), str(certificate.with_suffix(".key")))
        return session

    def _answer_challenge(self, response: requests.Response) -> bool:
        """Log in as the registry asks to. True: it is worth asking again."""
        challenge = response.headers.get("WWW-Authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        with self._lock:
            if not self._login_known:
                self._login = find_login(self._image.domain, self._image.path)
                self._login_known = True
            before = self._authorization
            if scheme.lower() == "basic" and self._login is not None and self._login.password is not None:
                self._authorization = self._login.basic()
            elif scheme.lower() == "bearer":
                self._authorization = f"Bearer {self._token(dict(_AUTH_PARAMETER.findall(rest)))}"
            return self._authorization is not None and (
                scheme.lower() == "bearer" or self._authorization != before
            )

    def _token(self, challenge: Mapping[str, str]) -> str:
        realm = challenge.get("realm", "")
        if not realm.startswith("https://") and not (
            realm.startswith("http://") and self._bases[0].startswith("http:")
        ):
            raise ConversionError(
                f"{self._image.domain} sends us to {realm!r} for a token, which is not https"
            )
        scope = f"repository:{self._image.path}:pull"
        login = self._login
        session = requests.Session()
        session.headers["User-Agent"] = "docker2nspawn"
        session.auth = _no_netrc
        session.verify = self._session().verify
        if login is not None and login.identity_token is not None:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "service": challenge.get("service", ""),
                "scope": scope,
                "client_id": "docker2nspawn",
            }
            response = session.post(realm, data=form, timeout=_TIMEOUT)
        else:
            parameters = {"service": challenge.get("service", ""), "scope": scope}
            headers = {"Authorization": login.basic()} if login is not None else {}
            response = session.get(realm, params=parameters, headers=headers, timeout=_TIMEOUT)
        if response.status_code in _BUSY:
            raise _BusyError(response)
        if response.status_code != 200:
            raise ConversionError(self._refusal(response))
        answer = parse_json(response.content[: MAX_DOCUMENT + 1], f"the token from {realm}")
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isprintable():
            raise ConversionError(f"{realm} sent no token")
        return token

    def _refusal(self, response: requests.Response) -> str:
        domain = self._image.domain
        if response.status_code in {401, 403}:
            who = "the login for it was refused" if self._login is not None else "it asks for a login"
            return f"{self._image}: {who}, or there is no such image; docker login {domain} (or podman login {domain})"
        if response.status_code == 404:
            return f"{domain} has no {self._image}"
        return f"{domain} answered {response.status_code} {response.reason} for {self._image}"


class _BusyError(requests.exceptions.ConnectionError):
    """The registry answered that it cannot answer now. `seconds`: when it wants to be asked again."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"it answers {response.status_code} {response.reason}")
        after = response.headers.get("Retry-After", "")
        self.seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth that adds nothing: without one, requests would send what ~/.netrc has for the host."""
    return request


def _pause(attempt: int, fault: Exception | None, stop: threading.Event | None = None) -> None:
    if attempt == 0:
        return
    seconds = PAUSE * 2 ** (attempt - 1)
    if isinstance(fault, _BusyError) and fault.seconds is not None:
        seconds = fault.seconds
    if stop is None:
        time.sleep(min(seconds, _LONGEST_PAUSE))
    elif stop.wait(min(seconds, _LONGEST_PAUSE)):
        raise _StoppedError


def _continues(response: requests.Response, done: int) -> bool:
    """Did the registry go on at byte `done`, as asked, rather than start again?"""
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
        f"bytes {done}-"
    )


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it was sent: an encoding of the transfer would break size and digest."""
    yield from response.raw.stream(_CHUNK, decode_content=False)


def _read(response: requests.Response, limit: int) -> bytes:
    data = b""
    for chunk in _chunks(response):
        data += chunk
        if len(data) > limit:
            raise ConversionError(f"a manifest has more than the {limit} bytes that are sensible")
    return data


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _reason(error: Any) -> str:
    """The innermost cause, on one line."""
    while isinstance(error, Exception):
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((arg for arg in error.args if isinstance(arg, Exception)), None)
        if inner is None:
            break
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
