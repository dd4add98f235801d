"""Who we are to a registry: what `docker login` and `podman login` have stored.

Docker's config.json with its credential helpers, through Docker's SDK, and podman's auth.json
(containers-auth.json(5)), whose keys may also name a part of a registry: the longest that fits counts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.auth
import docker.credentials
import docker.credentials.errors
import docker.errors
import docker.utils.config

from converter.errors import ConversionError

_DOCKER_HUB = "https://index.docker.io/v1/"  # the name that `docker login` stores docker.io under
_IS_TOKEN = "<token>"  # the user name of a credential helper's answer that is an identity token


@dataclass(frozen=True)
class Login:
    """A user name and password, or a token to get other tokens with."""

    user: str
    password: str | None = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    def basic(self) -> str:
        """The value of an Authorization header."""
        pair = f"{self.user}:{self.password or ''}".encode("utf-8", "surrogateescape")
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
    home = os.path.expanduser("~")  # noqa: PTH111  Path.home() raises where there is none
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "containers/auth.json")


def _from_podman(file: Path, domain: str, path: str) -> Login | None:
    document = _read(file, f"podman login {domain}")
    entries = _section(document, "auths", file)
    helpers = _section(document, "credHelpers", file)
    key = f"{domain}/{path}"
    while key:
        if isinstance(helper := helpers.get(key), str):
            return _ask_helper(helper, key, file)
        for spelling in (key, _DOCKER_HUB) if key == "docker.io" else (key,):
            entry = entries.get(spelling)
            if isinstance(entry, dict) and entry:
                return _decode(entry, file)
        key = key.rpartition("/")[0]
    return None


def _from_docker(domain: str) -> Login | None:
    found = docker.utils.config.find_config_file()
    if found is None:
        return None
    file = Path(str(found))
    document = {} if file.name == ".dockercfg" else _read(file, f"docker login {domain}")
    # Only this registry's entries: the SDK would stumble over a broken one of another registry.
    entries = {
        key: entry
        for key, entry in _section(document, "auths", file).items()
        if docker.auth.resolve_index_name(key) == domain
    }
    helpers = _section(document, "credHelpers", file)
    store = document.get("credsStore")
    if (store and not isinstance(store, str)) or not all(isinstance(name, str) for name in helpers.values()):
        raise ConversionError(f"{file} is not valid: names of credential helpers must be strings")
    wanted = {"auths": {k: e for k, e in entries.items() if e}, "credsStore": store, "credHelpers": helpers}
    # The SDK knows Docker Hub as None; a legacy .dockercfg it reads by itself.
    with _helper_faults(f"Docker's login for {domain}", file):
        config = docker.auth.load_config(config_dict=wanted if document else None)
        login = config.resolve_authconfig(None if domain == "docker.io" else domain)
    if not login:
        return None
    token = login.get("IdentityToken")
    password = login.get("Password") or login.get("password")
    if token is None and password is None:
        return None
    return Login(login.get("Username") or login.get("username") or "", password, token)


def _read(file: Path, how: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConversionError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConversionError(f"{file} is not valid JSON; repair or remove it, then {how}") from None
    if not isinstance(document, dict):
        raise ConversionError(f"{file} is not valid: it must be an object; remove it, then {how}")
    return document


def _section(document: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise ConversionError(f"{file} is not valid: {name} must be an object")
    return section


def _decode(entry: Mapping[str, Any], file: Path) -> Login:
    token = entry.get("identitytoken")
    try:
        pair = base64.b64decode(entry.get("auth") or "", validate=True).decode()
    except (ValueError, TypeError):
        raise ConversionError(f"{file} holds a login that cannot be read; log in again") from None
    user, colon, password = pair.partition(":")
    if isinstance(token, str) and token:
        return Login(user, None, token)
    if not colon:
        raise ConversionError(f"{file} holds a login that cannot be read; log in again")
    return Login(user, password.rstrip("\0"))


def _ask_helper(helper: str, key: str, file: Path) -> Login | None:
    with _helper_faults(f"podman's login for {key}", file):
        try:
            answer = docker.credentials.Store(helper).get(key)  # type: ignore[no-untyped-call]
        except docker.credentials.errors.CredentialsNotFound:
            return None
        if answer["Username"] == _IS_TOKEN:
            return Login("", None, answer["Secret"])
        return Login(answer["Username"], answer["Secret"])


@contextlib.contextmanager
def _helper_faults(what: str, file: Path) -> Iterator[None]:
    """Whatever is wrong with a stored login or a credential helper's answer is one line, without the secret."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK's, that there is no such helper; it raises as well
            yield
    except (docker.errors.DockerException, docker.credentials.errors.StoreError) as error:
        raise ConversionError(f"{what} cannot be had: {error.__cause__ or error}; see {file}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ConversionError(f"{what} cannot be read; log in again; see {file}") from None
