"""ADD of a URL: fetched into a file, as BuildKit's source/http does it."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import os
import posixpath
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from converter.dockerfile.model import Copy
from converter.dockerfile.pointing import error_at_flag, error_at_word
from converter.dockerfile.selection import Entry, Item
from converter.dockerfile.unpacking import is_archive
from converter.errors import ConversionError

_TIMEOUT = 60  # seconds to connect, and without a byte
_BLOCK = 1 << 20
_SIZE_MAX = 1 << 36  # bytes: what never ends is not filled into the disk
_SCHEMES = ("http://", "https://")
_KEPT = "%/:=&?~#+!$,;'@()*[]"  # what stands in URLs for itself
_DIGEST = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)").fullmatch
_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}


def is_url(text: str) -> bool:
    """Is it a URL that ADD fetches?"""
    return text.startswith(_SCHEMES)


def fetch_url(step: Copy, url: str, place: Path) -> Item:
    """Fetch it into the new directory `place`.

    Its mode is 0600, its time Last-Modified's, its name the last step of the URL's path. Raises DockerfileError.
    """
    name = posixpath.basename(unquote(urlsplit(url).path).rstrip("/")) or "__unnamed__"
    algorithm, expected = _checksum(step)
    place.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.new(algorithm)
    try:
        with _open(url) as response:
            time = _time(response.headers.get("Last-Modified"))
            size = _save(response, place / "content", digest)
    except ConversionError as error:
        raise error_at_word(step.instruction, url, f"cannot fetch {_shown(url)!r}: {error}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        if isinstance(error, urllib.error.HTTPError):
            reason = f"{error.code} {error.reason}"
        text = f"cannot fetch {_shown(url)!r}: {reason}"
        raise error_at_word(step.instruction, url, text, "see whether curl can on this host") from None
    if expected and digest.hexdigest() != expected:
        raise error_at_flag(
            step.instruction,
            "checksum",
            f"{_shown(url)!r} has the digest {algorithm}:{digest.hexdigest()}, not {algorithm}:{expected}",
            "somebody has changed it; look at it before changing --checksum",
        )
    entries = (Entry("", "file", 0o600, size=size, atime=time, mtime=time),)
    return Item(name, place, "content", entries, archive=bool(step.unpack) and _is_archive(place / "content"))


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return is_archive(file.fileno())


def _checksum(step: Copy) -> tuple[str, str]:
    if not step.checksum:
        return "sha256", ""
    match = _DIGEST(step.checksum)
    if match is None or len(match[2]) != _DIGITS[match[1]]:
        text = f"--checksum={step.checksum} is no digest"
        raise error_at_flag(step.instruction, "checksum", text, "write it like sha256:… with 64 digits")
    return match[1], match[2]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To HTTP only, and never out of TLS."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https://",) if req.full_url.startswith("https://") else _SCHEMES
        if not newurl.startswith(allowed):
            raise ConversionError(f"it leads on to {_shown(newurl)!r}, which is not {allowed[0][:-3]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> Any:
    parts = urlsplit(url)
    request = urllib.request.Request(
        quote(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), safe=_KEPT),
        headers={"User-Agent": "docker2nspawn", "Accept-Encoding": "identity"},
    )
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        # Whoever we are sent on to does not get it.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    return urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT)


def _save(response: Any, path: Path, digest: Any) -> int:
    size = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        while block := response.read(_BLOCK):
            size += len(block)
            if size > _SIZE_MAX:
                raise ConversionError(f"it is larger than {_SIZE_MAX >> 30} GiB")
            digest.update(block)
            file.write(block)
    if response.length:
        raise ConversionError(f"it is cut short after {size} bytes")
    return size


def _time(last_modified: str | None) -> int:
    """In ns; 1970 where the server does not say."""
    try:
        return int(email.utils.parsedate_to_datetime(last_modified or "").timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0


def _shown(url: str) -> str:
    """Without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()[:500]
