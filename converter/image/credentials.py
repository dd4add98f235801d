"""Who we are to a registry: what `docker login` and `podman login` have stored.

Docker's config.json with its credential helpers, through Docker's SDK; podman's auth.json (containers-auth.json(5)),
whose keys may also name a part of a registry: the longest that fits counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.auth
import docker.credentials.errors
import docker.errors

from converter.errors import ConversionError


@dataclass(frozen=True)
class Login:
    """A user name and password, or a token to get other tokens with."""

    user: str
    password: str | None
    identity_token: str | None = None

    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.user}:{self.password or ''}".encode()
        return "Basic " + base64.b64encode(pair).decode()


def find_login(domain: str, path: str) -> Login | None:
    """The login for repository `path` of registry `domain`; podman's files first, they can be more exact.

    Raises ConversionError when a file or a credential helper is broken.
    """
    for file in _podman_files():
        login = _from_podman(file, domain, path)
        if login is not None:
            return login
    return _from_docker(domain)


def _podman_files() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json")
    else:
        yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "containers/auth.json")


def _from_podman(file: Path, domain: str, path: str) -> Login | None:
    try:
        document = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConversionError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConversionError(f"{file} is not valid JSON; log in again with podman login {domain}") from None
    entries: Any = document.get("auths") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        return None
    key = f"{domain}/{path}"
    while key:
        for spelling in (key, "https://index.docker.io/v1/" if key == "docker.io" else key):
            entry = entries.get(spelling)
            if isinstance(entry, dict) and isinstance(entry.get("auth"), str):
                return _decode(entry["auth"], file)
        key = key.rpartition("/")[0]
    return None


def _decode(text: str, file: Path) -> Login:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ConversionError(f"{file} holds a login that cannot be read; log in again")
    return Login(user, password.rstrip("\0"))


def _from_docker(domain: str) -> Login | None:
    # docker.auth knows Docker Hub by the name that `docker login` stores it under.
    registry = None if domain == "docker.io" else domain
    try:
        found = docker.auth.load_config().resolve_authconfig(registry)
    except (docker.errors.DockerException, docker.credentials.errors.CredentialsNotFound) as error:
        raise ConversionError(f"Docker's login for {domain} cannot be read: {error}") from None
    except docker.credentials.errors.StoreError as error:
        raise ConversionError(f"Docker's credential helper for {domain} failed: {error}") from None
    if not found:
        return None
    token = found.get("IdentityToken") or found.get("identitytoken")
    user = found.get("Username") or found.get("username") or ""
    password = found.get("Password") or found.get("password")
    if token is None and password is None:
        return None
    return Login(user, password, token)
