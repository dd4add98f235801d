"""Speaking to a registry: challenges, tokens, redirects and certificates.

https://distribution.github.io/distribution/spec/auth/token/; certificates are the system's and those of certs.d
(containers-certs.d(5)).
"""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from converter.errors import ConversionError
from converter.image.credentials import Login, find_login
from converter.image.manifest import parse_json

BUSY = frozenset({408, 429, 500, 502, 503, 504})
CERTIFICATES = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_TIMEOUT = (10, 30)  # seconds to connect, and without a byte
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_MOST_TOKEN = 1 << 20  # bytes
# Possessive throughout: what comes is as long as a header may be, and must not be tried in more than one way.
_CHALLENGE = re.compile(
    r"""[\s,]*+(?:
        (?P<key>[\w-]++)\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^\s,"]++))
        |(?P<scheme>[\w-]++)(?=[\s,]|$)
    )""",
    re.VERBOSE | re.ASCII,
)


def tls_context(domain: str) -> ssl.SSLContext:
    """What registry `domain` must show and is shown: the system's authorities (also SSL_CERT_FILE, SSL_CERT_DIR),
    and certs.d's `*.crt` (authorities), `*.cert` and `*.key` (ours).

    Raises ConversionError when one of these files cannot be used.
    """
    file: Path | None = None
    try:
        context = ssl.create_default_context()
        for directory in CERTIFICATES:
            for file in sorted((directory / domain).glob("*.crt")):
                context.load_verify_locations(file)
            for file in sorted((directory / domain).glob("*.cert")):
                # An empty password, so that OpenSSL does not ask the terminal for one.
                context.load_cert_chain(file, file.with_suffix(".key"), password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = f"{file}, with its .key," if file and file.suffix == ".cert" else file or "SSL_CERT_FILE"
        raise ConversionError(f"{what} cannot be used for {domain}: {error.args[-1]}") from None
    return context


def parse_challenges(values: Iterable[str]) -> dict[str, dict[str, str]]:
    """What WWW-Authenticate headers (RFC 9110, 11.6.1) ask for: scheme to its parameters, names in lower case."""
    found: dict[str, dict[str, str]] = {}
    for value in values:
        parameters: dict[str, str] = {}
        position = 0
        while match := _CHALLENGE.match(value, position):
            position = match.end()
            if match["scheme"]:
                parameters = found.setdefault(match["scheme"].lower(), {})
            else:
                quoted = match["quoted"]
                text = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(match["key"].lower(), text)
    return found


class BusyError(requests.exceptions.ConnectionError):
    """The registry answered that it cannot answer now. `seconds`: when it wants to be asked again."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"it answers {status(response)}")
        after = response.headers.get("Retry-After", "")  # seconds, or a date (RFC 9110, 10.2.3)
        self.seconds: float | None = None
        if after.isascii() and after.isdecimal():
            self.seconds = float(after[:9])
        else:
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                self.seconds = max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())


class _Session(requests.Session):
    """A session that follows no redirect: requests would read its body, without bound, and ask ~/.netrc."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Never: Access.send follows."""


class _Adapter(HTTPAdapter):
    """An adapter whose TLS trusts what the context trusts, beside requests' own authorities."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)


class Access:
    """Sends requests to one repository of a registry, with our login, which nobody else gets. For many threads."""

    def __init__(self, domain: str, path: str) -> None:
        self.authorization: str | None = None
        self._domain = domain
        self._path = path
        self._context = tls_context(domain)
        self._login: Login | None = None
        self._login_known = False
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            session.close()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Send a request and follow where it is sent on to: without the login to others, and never out of TLS.

        Raises what requests raises, and ConversionError for redirects that are not followed.
        """
        sent = {**headers, "Accept-Encoding": "identity"}
        try:
            for _ in range(_MOST_REDIRECTS):
                proxies = {"no_proxy": "*"} if is_loopback(urlsplit(url).netloc) else None  # as Go does
                response = self._session().request(
                    method, url, headers=sent, data=form, stream=True, timeout=_TIMEOUT, proxies=proxies
                )
                location = response.headers.get("Location")
                if response.status_code not in _REDIRECTS or location is None or form is not None:
                    return response
                response.close()
                target = urljoin(url, location.encode("latin-1").decode())
                if urlsplit(target).scheme not in {"https", urlsplit(url).scheme}:
                    # Its host alone, here and elsewhere: the rest may be a signature that lets anybody in.
                    raise ConversionError(
                        f"{self._domain} sends us on to {place(target)}, which is not https"
                    )
                if _origin(target) != _origin(url):
                    sent.pop("Authorization", None)
                url = target
        except (ValueError, requests.exceptions.InvalidURL) as error:
            raise ConversionError(
                f"{self._domain} sends us to an address that is none: {reason(error)}"
            ) from None
        except requests.exceptions.RequestException:
            raise
        except OSError as error:  # requests' word for a CA bundle that is not there
            raise ConversionError(f"{self._domain}: {reason(error)}") from None
        raise ConversionError(f"{self._domain} sends us on more than {_MOST_REDIRECTS} times")

    def is_from(self, response: requests.Response, base: str) -> bool:
        """Whether the registry at the URL `base` itself answered, and nobody it sent us on to."""
        return _origin(response.url) == _origin(base)

    def log_in(self, response: requests.Response, base: str, used: str | None) -> bool:
        """Set `authorization` as the registry at `base` asks for with its 401. True: it is worth asking again.

        `used` is the authorization that was not enough. Raises ConversionError when the login is refused.
        """
        if not self.is_from(response, base):
            return False  # whoever we were sent on to would name a place for our password to go
        challenges = parse_challenges(response.raw.headers.getlist("WWW-Authenticate"))
        with self._lock:
            if self.authorization != used:
                return True  # another thread was here first
            if not self._login_known:
                self._login = find_login(self._domain, self._path)
                self._login_known = True
            if "bearer" in challenges:
                self.authorization = f"Bearer {self._token(challenges['bearer'], base)}"
            elif "basic" in challenges and self._login is not None and self._login.password is not None:
                self.authorization = self._login.basic()
            return self.authorization != used

    def _token(self, challenge: Mapping[str, str], base: str) -> str:
        """Get a token: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/"""
        realm = challenge.get("realm", "")
        if not realm.startswith(("https://", "http://") if base.startswith("http://") else "https://"):
            raise ConversionError(
                f"{self._domain} sends us to {realm[:200]!r} for a token, which is not https"
            )
        login = self._login
        wanted = {"service": challenge.get("service", ""), "scope": f"repository:{self._path}:pull"}
        if login is not None and login.identity_token is not None:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": login.identity_token,
                "client_id": "docker2nspawn",
                **wanted,
            }
            response = self.send("POST", realm, {}, form)
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(wanted)}"
            response = self.send("GET", url, {"Authorization": login.basic()} if login is not None else {})
        with response:
            if response.status_code in BUSY:
                raise BusyError(response)
            if response.status_code in {400, 401, 403}:
                raise ConversionError(self.refusal(f"{self._domain}/{self._path}"))
            if response.status_code != 200:
                raise ConversionError(f"{realm[:200]} answered {status(response)} instead of a token")
            data = response.raw.read(_MOST_TOKEN + 1, decode_content=False)
        answer = parse_json(data[:_MOST_TOKEN], f"the token from {realm[:200]}")
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ConversionError(f"{realm[:200]} sent no token")
        return token

    def refusal(self, image: str) -> str:
        """Why we may not have `image`, and what to do."""
        who = "the login for it was refused" if self._login is not None else "it asks for a login"
        login = f"docker login {self._domain} (or podman login {self._domain})"
        return f"{image}: {who}, or there is no such image; {login}"

    def _session(self) -> requests.Session:
        """One session for each thread: requests' own are not made for sharing."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.headers["User-Agent"] = "docker2nspawn"
            session.auth = _no_netrc
            session.mount("https://", _Adapter(self._context))
            self._sessions.append(session)
        return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An auth that adds nothing: without one, requests would send what ~/.netrc has for the host."""
    return request


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def place(url: str) -> str:
    """Scheme and host of a URL, for messages."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{re.split('[/?#]', rest)[0].rpartition('@')[2]}"[:200]


def is_loopback(host: str) -> bool:
    """Whether `host`, perhaps with a port, is this machine and no other."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def status(response: requests.Response) -> str:
    """An answer's number and its words."""
    return f"{response.status_code} {(response.reason or '')[:80]}".rstrip()


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it comes from, the innermost last."""
    inner: object = error
    while isinstance(inner, BaseException):
        yield inner
        outer = inner
        inner = outer.__cause__ or outer.__context__ or getattr(outer, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((argument for argument in outer.args if isinstance(argument, Exception)), None)


def reason(error: BaseException) -> str:
    """The innermost cause, short."""
    *_, innermost = causes(error)
    words = innermost.strerror if isinstance(innermost, OSError) and innermost.strerror else str(innermost)
    return words[:200] or type(innermost).__name__
