"""USER against passwd and group, as Docker's GetExecUser resolves it (moby/sys/user, user.go)."""

from __future__ import annotations

import pytest

from converter.errors import ConversionError
from converter.machine.account import resolve_account
from converter.machine.model import Account

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
nohome:x:7:7::
app:x:5:5:a second one:/nowhere:/bin/sh
"""
GROUP = b"""root:x:0:
app:x:1001:
www:x:33:app,other
log:x:34:other,app
wheel:x:10:root
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Account(0, 0, (0, 10), "/root")),
        ("root", Account(0, 0, (0, 10), "/root")),
        ("0", Account(0, 0, (0, 10), "/root")),
        ("app", Account(1000, 1001, (1001, 33, 34), "/home/app")),
        ("1000", Account(1000, 1001, (1001, 33, 34), "/home/app")),
        ("app:www", Account(1000, 33, (33,), "/home/app")),
        ("app:33", Account(1000, 33, (33,), "/home/app")),
        ("app:4242", Account(1000, 4242, (4242,), "/home/app")),
        ("1000:0", Account(1000, 0, (0,), "/home/app")),
        ("65532", Account(65532, 0, (0,), "/")),
        ("65532:65532", Account(65532, 65532, (65532,), "/")),
        ("nohome", Account(7, 7, (7,), "/")),
        ("app:", Account(1000, 1001, (1001, 33, 34), "/home/app")),
        ("app:www:root", Account(1000, 33, (33,), "/home/app")),
    ],
)
def test_like_docker(user: str, expected: Account) -> None:
    assert resolve_account(user, PASSWD, GROUP) == expected


def test_without_any_passwd() -> None:
    assert resolve_account("", None, None) == Account(0, 0, (0,), "/")
    assert resolve_account("65532:7", None, None) == Account(65532, 7, (7,), "/")


@pytest.mark.parametrize("user", ["ghost", "app:ghosts", "-1", "2147483648", "0:99999999999"])
def test_what_docker_refuses(user: str) -> None:
    with pytest.raises(ConversionError, match="USER"):
        resolve_account(user, PASSWD, GROUP)


def test_broken_lines_are_survived() -> None:
    passwd = b"\xff\xfe\n:::\nshort\napp:x:12\n\n"
    assert resolve_account("app", passwd, b"\x00") == Account(12, 0, (0,), "/")
