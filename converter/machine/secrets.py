"""Which variables of an environment look like secrets, so that the files that hold them are not for everyone."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE|SIGNING|ENCRYPTION|MASTER)_?KEY"
    r"|^(PGPASS|MYSQL_PWD|REDISCLI_AUTH)$|(^|_)(PASS|PWD|DSN)$|_AUTH$|^AWS_(ACCESS|SECRET|SESSION)",
    re.IGNORECASE,
)
_NOT_A_SECRET = frozenset({"PWD", "OLDPWD"})  # the working directories of a shell
_VALUE = re.compile(
    r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@|-----BEGIN [A-Z0-9 ]*(KEY|CERTIFICATE)", re.IGNORECASE
)
_PUBLIC = frozenset({"0", "1", "true", "false", "yes", "no", "on", "off"})


def looks_secret(assignments: Iterable[str]) -> tuple[str, ...]:
    """The NAMEs of those NAME=VALUE that look like a secret, in their order.

    By the name (PASSWORD, API_KEY, …) or by the value (user:password@ in a URL, a PEM block). Empty values, plain
    switches, and paths in NAME_FILE are none.
    """
    found = []
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if _is_secret(name, value):
            found.append(name)
    return tuple(dict.fromkeys(found))


def _is_secret(name: str, value: str) -> bool:
    if not value.strip():
        return False
    if _VALUE.search(value):
        return True
    if name.upper() in _NOT_A_SECRET or value.lower() in _PUBLIC:
        return False
    if name.upper().endswith(("_FILE", "_PATH", "_DIR")) and value.startswith("/"):
        return False
    return bool(_NAME.search(name))
