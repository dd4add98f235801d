"""A registry on loopback that can be told to misbehave; beside Debian's real one, which never does."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Served:
    """What it has, how it behaves, and what it was asked. `faults` are used up one by one, by blob digest."""

    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    auth: str | None = None  # "basic", "token", "refresh"
    token: str = "let-me-in"
    sent: int = 0  # bytes of endless answers
    ranges: bool = True
    faults: dict[str, list[str]] = field(default_factory=dict)
    redirect: str | None = None
    challenge: str | None = None  # instead of the usual one
    token_body: bytes | None = None
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)  # path: status and headers
    scheme: str = "http"
    release: threading.Event = field(default_factory=threading.Event)  # ends stalls
    stalled: threading.Event = field(default_factory=threading.Event)  # one has begun
    requests: list[tuple[str, str | None, str | None]] = field(
        default_factory=list
    )  # path, Range, Authorization
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes) -> dict[str, object]:
        """Keep a blob; its descriptor's digest and size."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data)}

    def add_manifest(self, document: object, media_type: str, *names: str) -> dict[str, object]:
        """Keep a manifest under its digest and these tags; its descriptor."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for name in (digest, *names):
            self.manifests[name] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def fault(self, digest: str) -> str | None:
        """The next fault for this blob or manifest."""
        with self.lock:
            waiting = self.faults.get(digest, [])
            return (waiting[0] if waiting[0].endswith("!") else waiting.pop(0)) if waiting else None


LOGIN = "Basic " + base64.b64encode(b"user:pass:word").decode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, format: str, *args: object) -> None:
        """Tests read Served.requests instead."""

    def do_GET(self) -> None:
        served = self.served
        url = urlsplit(self.path)
        authorization = self.headers.get("Authorization")
        served.requests.append((self.path, self.headers.get("Range"), authorization))
        if url.path in served.answers:
            status, headers = served.answers[url.path]
            self._send(status, b"", headers)
            return
        if url.path == "/token" and served.token_body is not None:
            self._send(200, served.token_body)
            return
        if url.path == "/token":
            query = parse_qs(url.query)
            if authorization not in {None, LOGIN}:
                self._send(401, b"")
            elif query.get("scope") != ["repository:test/image:pull"] or query.get("service") != ["lab"]:
                self._send(400, b"")
            else:
                self._send(200, json.dumps({"token": served.token}).encode())
            return
        wanted = {
            None: None,
            "basic": LOGIN,
            "token": f"Bearer {served.token}",
            "refresh": "Bearer refreshed",
        }[served.auth]
        if wanted is not None and authorization != wanted:
            challenge = f'Bearer realm="{served.scheme}://{served.address}/token",service="lab",scope="x"'
            challenge = served.challenge or challenge
            self._send(
                401, b"{}", {"WWW-Authenticate": 'Basic realm="lab"' if served.auth == "basic" else challenge}
            )
            return
        if match := re.fullmatch(r"/v2/test/image/manifests/(.+)", url.path):
            fault = served.fault(match[1])
            if fault is not None:
                self._send(int(fault.rstrip("!")), b"", {"Retry-After": "0"})
                return
            if match[1] not in served.manifests:
                self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
                return
            media_type, data = served.manifests[match[1]]
            self._send(200, data, {"Content-Type": media_type, "Docker-Content-Digest": "sha256:" + "0" * 64})
        elif match := re.fullmatch(r"/v2/test/image/blobs/(.+)", url.path):
            self._blob(match[1])
        else:
            self._send(404, b"")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        if form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == ["identity"]:
            self._send(200, json.dumps({"access_token": "refreshed"}).encode())
        else:
            self._send(401, b"")

    def _blob(self, digest: str) -> None:
        served = self.served
        data = served.blobs.get(digest)
        if data is None:
            self._send(404, b"")
            return
        if served.redirect is not None:
            self._send(307, b"", {"Location": f"{served.redirect}/v2/test/image/blobs/{digest}"})
            return
        fault = (served.fault(digest) or "").rstrip("!")
        if fault.isdigit():
            self._send(int(fault), b"", {"Retry-After": "0"})
            return
        if fault == "expired" and self.headers.get("Authorization") is not None:
            challenge = f'Bearer realm="{served.scheme}://{served.address}/token",service="lab"'
            served.auth, served.token = "token", "let-me-in-again"
            self._send(401, b"", {"WWW-Authenticate": challenge})
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked is not None and served.ranges:
            start = int(asked[1])
        body = data[start:]
        length = len(body)
        if fault == "cut":
            body = body[: len(body) // 2]
        elif fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif fault == "longer":  # than the manifest says, without end as far as anybody knows
            body, length = body + bytes(10_000_000), length + 10_000_000
        elif fault == "chunked":  # longer as well, but it does not say how long
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for piece in (body, *[bytes(1 << 20)] * 100):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    served.sent += len(piece)
            self.close_connection = True
            return
        elif fault == "stall":
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body[:1000])
            self.wfile.flush()
            served.stalled.set()
            served.release.wait(60)
            self.close_connection = True
            return
        elif fault == "elsewhere":  # a range that nobody asked for
            self._send(206, data[5:], {"Content-Range": f"bytes 5-{len(data) - 1}/{len(data)}"})
            return
        elif fault == "piecewise" and start:  # a part of the range, as proxies that keep pieces give it
            last = min(start + 500_000, len(data)) - 1
            headers = {"Content-Range": f"bytes {start}-{last}/*"}
            self._send(206, data[start : last + 1], headers)
            return
        elif fault == "shorter":
            body, length = body[:-1], length - 1
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)
        self.close_connection = self.close_connection or fault != ""

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Run it on a free loopback port, over TLS when there is a context for it."""
    served = Served(scheme="http" if tls is None else "https")
    handler = type("Handler", (_Handler,), {"served": served})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.release.set()
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up, or speak TLS where there is none, are what the tests are about."""
