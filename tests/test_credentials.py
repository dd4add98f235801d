"""Stored logins and certificates: which one counts, and that broken ones end in one line without the secret."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ConversionError
from converter.image import access
from converter.image.access import parse_challenges, tls_context
from converter.image.credentials import Login, find_login


def entry(login: str) -> dict[str, str]:
    return {"auth": base64.b64encode(login.encode()).decode()}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user who has logged in nowhere."""
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def store(file: Path, document: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document if isinstance(document, str) else json.dumps(document))


def helper(home: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A real docker-credential-lab; what it is asked is in the file `asked`."""
    program = home / "bin/docker-credential-lab"
    store(program, f'#!/bin/sh\nread -r server\necho "$1 $server" >>{home}/asked\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_nobody() -> None:
    assert find_login("docker.io", "library/busybox") is None


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
    ],
)
def test_dockers_file(home: Path, key: str, domain: str) -> None:
    store(home / ".docker/config.json", {"auths": {key: entry("me:se:cret"), "other.io": entry("x:y")}})
    assert find_login(domain, "a/b") == Login("me", "se:cret")
    assert find_login("example.org", "a/b") is None


def test_docker_config_names_another_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(home / ".docker/config.json", {"auths": {"r.io": entry("wrong:one")}})
    store(home / "else/config.json", {"auths": {"r.io": entry("right:one")}})
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "else"))
    assert find_login("r.io", "a") == Login("right", "one")


def test_identity_tokens(home: Path) -> None:
    token = {**entry("me:"), "identitytoken": "t"}
    store(home / ".docker/config.json", {"auths": {"r.io": token}})
    found = find_login("r.io", "a")
    assert found is not None
    assert (found.password, found.identity_token) == (None, "t")
    store(home / "run/containers/auth.json", {"auths": {"r.io": token}})
    assert find_login("r.io", "a") == Login("me", None, "t")


@pytest.mark.parametrize("where", ["run/containers/auth.json", ".config/containers/auth.json"])
def test_podmans_files_come_before_dockers(home: Path, where: str) -> None:
    store(home / ".docker/config.json", {"auths": {"r.io": entry("docker:x")}})
    store(home / where, {"auths": {"r.io": entry("podman:x")}})
    assert find_login("r.io", "a") == Login("podman", "x")


def test_registry_auth_file_stands_for_podmans_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(home / "run/containers/auth.json", {"auths": {"r.io": entry("wrong:x")}})
    store(home / "mine.json", {"auths": {"r.io": entry("right:x")}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "mine.json"))
    assert find_login("r.io", "a") == Login("right", "x")


def test_xdg_config_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(home / "xdg/containers/auth.json", {"auths": {"r.io": entry("me:x")}})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    assert find_login("r.io", "a") == Login("me", "x")


@pytest.mark.parametrize(
    ("path", "user"),
    [
        ("team/app/web", "web"),
        ("team/app/other", "app"),
        ("team/application", "team"),  # whole names, not beginnings of them
        ("team/app", "app"),
        ("teamwork/x", "all"),
    ],
)
def test_the_longest_key_that_fits(home: Path, path: str, user: str) -> None:
    keys = {"r.io": "all", "r.io/team": "team", "r.io/team/app": "app", "r.io/team/app/web": "web"}
    entries = {key: entry(f"{name}:x") for key, name in keys.items()}
    store(home / "run/containers/auth.json", {"auths": {**entries, "other.io": entry("x:y")}})
    found = find_login("r.io", path)
    assert found is not None
    assert found.user == user


def test_docker_hub_in_podmans_file(home: Path) -> None:
    file = home / "run/containers/auth.json"
    store(file, {"auths": {"https://index.docker.io/v1/": entry("old:x")}})
    assert find_login("docker.io", "library/busybox") == Login("old", "x")
    store(file, {"auths": {"docker.io": entry("new:x"), "docker.io/acme": entry("acme:x")}})
    assert find_login("docker.io", "library/busybox") == Login("new", "x")
    assert find_login("docker.io", "acme/web") == Login("acme", "x")


@pytest.mark.parametrize(
    "config",
    [{"credsStore": "lab"}, {"credHelpers": {"r.io": "lab"}}, {"credsStore": "lab", "auths": {"r.io": {}}}],
)
def test_dockers_credential_helpers(
    home: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    helper(home, monkeypatch, """echo '{"Username": "me", "Secret": "secret"}'""")
    store(home / ".docker/config.json", config)
    assert find_login("r.io", "a") == Login("me", "secret")
    assert (home / "asked").read_text() == "get r.io\n"


def test_a_helper_for_docker_hub_is_asked_for_its_old_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(home, monkeypatch, """echo '{"Username": "<token>", "Secret": "t"}'""")
    store(home / ".docker/config.json", {"credsStore": "lab"})
    assert find_login("docker.io", "library/busybox") == Login("", None, "t")
    assert (home / "asked").read_text() == "get https://index.docker.io/v1/\n"


def test_a_helper_that_knows_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, "echo credentials not found in native keychain; exit 1")
    store(home / ".docker/config.json", {"credsStore": "lab"})
    assert find_login("r.io", "a") is None
    store(home / "run/containers/auth.json", {"credHelpers": {"r.io": "lab"}})
    assert find_login("r.io", "a") is None


def test_podmans_credential_helpers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(home, monkeypatch, """echo '{"Username": "me", "Secret": "secret"}'""")
    store(home / "run/containers/auth.json", {"credHelpers": {"r.io": "lab"}})
    assert find_login("r.io", "a/b") == Login("me", "secret")


@pytest.mark.parametrize(
    "script",
    [
        "echo locked; exit 1",
        "echo not json",
        "echo '{}'",
        "echo '[]'",
        "kill -9 $$",
        "printf '\\377'",
        None,  # not installed
    ],
)
@pytest.mark.parametrize("file", [".docker/config.json", "run/containers/auth.json"])
def test_a_broken_helper_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, file: str
) -> None:
    if script is not None:
        helper(home, monkeypatch, script)
    store(home / file, {"credHelpers": {"r.io": "lab"}})
    with (
        warnings.catch_warnings(),
        pytest.raises(ConversionError, match=r"login for r\.io cannot be") as raised,
    ):
        warnings.simplefilter("error")
        find_login("r.io", "a")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", [".docker/config.json", "run/containers/auth.json"])
@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        "[" * 100_000,
        {"auths": "x"},
        {"auths": ["x"]},
        {"credHelpers": 1},
        {"auths": {"r.io": {"auth": "é"}}},
        {"auths": {"r.io": {"auth": "###"}}},
        {"auths": {"r.io": {"auth": 5}}},
        {"auths": {"r.io": {"auth": base64.b64encode(b"secret-without-colon").decode()}}},
        {"auths": {"r.io": {"auth": base64.b64encode(b"secret\xff:x").decode()}}},
    ],
)
def test_a_broken_file_is_one_line(home: Path, file: str, document: object) -> None:
    store(home / file, document)
    with pytest.raises(ConversionError, match=Path(file).name.replace(".", r"\.")) as raised:
        find_login("r.io", "a")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("file", [".docker/config.json", "run/containers/auth.json"])
def test_anothers_broken_login_is_no_matter(home: Path, file: str) -> None:
    broken = {"other.io": {"auth": "###"}, "third.io": 7, "r.io": entry("me:x")}
    store(home / file, {"auths": broken})
    assert find_login("r.io", "a") == Login("me", "x")


def test_an_empty_file_is_no_login(home: Path) -> None:
    store(home / ".docker/config.json", "")
    store(home / "run/containers/auth.json", "")
    assert find_login("r.io", "a") is None


def test_a_legacy_dockercfg(home: Path) -> None:
    store(home / ".dockercfg", {"https://r.io/v1/": {**entry("me:x"), "email": "me@r.io"}})
    assert find_login("r.io", "a") == Login("me", "x")


def test_a_login_does_not_show_its_secret() -> None:
    login = Login("grüße", "pass:wörd", "token")
    assert "wörd" not in repr(login)
    assert "token'" not in repr(login)
    assert base64.b64decode(login.basic().removeprefix("Basic ")).decode() == "grüße:pass:wörd"


def certificate(directory: Path, name: str, *extra: str) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=lab",
    ]
    key = directory / f"{name}.key"
    command += [
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(directory / f"{name}.cert"),
        *(extra or ["-nodes"]),
    ]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def certs_d(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(access, "CERTIFICATES", (tmp_path / "certs.d",))
    directory = tmp_path / "certs.d/r.io:5000"
    directory.mkdir(parents=True)
    return directory


def test_an_authority_of_certs_d_is_added_for_its_host_only(certs_d: Path) -> None:
    certificate(certs_d, "one")
    (certs_d / "one.cert").rename(certs_d / "one.crt")
    subjects = [ca["subject"] for ca in tls_context("r.io:5000").get_ca_certs()]
    assert ((("commonName", "lab"),),) in subjects
    others = [ca["subject"] for ca in tls_context("other.io").get_ca_certs()]
    assert ((("commonName", "lab"),),) not in others
    assert tls_context("r.io:5000").verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("ca.crt", r"ca\.crt cannot be used for r\.io:5000"),
        ("client.cert", r"client\.cert, with its \.key, cannot be used"),
        ("no key", r"client\.cert, with its \.key, cannot be used"),
        ("encrypted key", r"client\.cert, with its \.key, cannot be used"),
    ],
)
def test_a_certificate_that_cannot_be_used(certs_d: Path, broken: str, message: str) -> None:
    if broken == "ca.crt":
        (certs_d / broken).write_text("no certificate")
    elif broken == "client.cert":
        (certs_d / broken).write_text("no certificate")
        (certs_d / "client.key").write_text("no key")
    else:
        certificate(certs_d, "client", *(["-passout", "pass:secret"] if broken == "encrypted key" else []))
        if broken == "no key":
            (certs_d / "client.key").unlink()
    with pytest.raises(ConversionError, match=message):
        tls_context("r.io:5000")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['Basic realm="x"'], {"basic": {"realm": "x"}}),
        (["Basic"], {"basic": {}}),
        (
            ['Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a/b:pull,push"'],
            {"bearer": {"realm": "https://a/t?x=1,2", "service": "s", "scope": "repository:a/b:pull,push"}},
        ),
        (["BEARER Realm=https://a , service = s"], {"bearer": {"realm": "https://a", "service": "s"}}),
        (['Bearer realm="a", Basic realm="b"'], {"bearer": {"realm": "a"}, "basic": {"realm": "b"}}),
        (['Basic realm="b"', 'Bearer realm="a"'], {"bearer": {"realm": "a"}, "basic": {"realm": "b"}}),
        ([r'Bearer realm="a\"b\\c"'], {"bearer": {"realm": r'a"b\c'}}),
        (["Negotiate", "Basic realm=x"], {"negotiate": {}, "basic": {"realm": "x"}}),
        ([], {}),
        (['"', "===", ",,,", 'Bearer realm="open'], {"bearer": {}}),
    ],
)
def test_challenges(values: list[str], expected: dict[str, dict[str, str]]) -> None:
    assert parse_challenges(values) == expected


def test_a_long_challenge_takes_no_time() -> None:
    started = time.monotonic()
    for text in (
        "a" * 60_000,
        "a=" * 30_000,
        'a="' + "\\" * 60_000,
        "a " * 30_000,
        " " * 60_000,
        "," * 60_000,
    ):
        parse_challenges([text])
    assert time.monotonic() - started < 2
