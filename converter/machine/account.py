"""USER, resolved as Docker resolves it: against the image's own /etc/passwd and /etc/group, to numbers.

The rules are those of github.com/moby/sys/user GetExecUser, which dockerd and runc call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from converter.errors import ConversionError
from converter.machine.model import Account

_MAX_ID = 2**31 - 1  # GetExecUser's own limit


def resolve_account(user: str, passwd: bytes | None, group: bytes | None) -> Account:
    """Who `user` is ("", name, uid, name:group, uid:gid, …); None stands for a file that does not exist.

    Raises ConversionError where `docker run` would refuse to start: an unknown name, an id out of range.
    """
    user_part, group_part, *_ = (*user.split(":"), "")  # what stands behind a second colon is ignored
    wanted_uid = _number(user_part)
    uid, gid, home, name = 0, 0, "/", ""
    for fields in _lines(passwd, 7):
        entry_uid = _number(fields[2]) or 0
        by_number = wanted_uid is not None or not user_part
        if entry_uid == (wanted_uid or 0) if by_number else fields[0] == user_part:
            name, uid, gid, home = fields[0], entry_uid, _number(fields[3]) or 0, fields[5]
            break
    else:
        if user_part and wanted_uid is None:
            raise ConversionError(
                f"USER {user!r} is not in the image's /etc/passwd, so `docker run` cannot start it either; "
                "rebuild the image with that user, or with a number"
            )
        uid = wanted_uid or 0
    groups: list[int] = []
    if group_part:
        gid = _explicit_group(user, group_part, group)
    elif name:
        groups = [_number(f[2]) or 0 for f in _lines(group, 4) if name in f[3].split(",")]
    for number in (uid, gid, *groups):
        if not 0 <= number <= _MAX_ID:
            raise ConversionError(
                f"USER {user!r} means the id {number}, which is out of range (0 to {_MAX_ID})"
            )
    # Docker puts the primary group first into the supplementary ones (CVE-2022-36109).
    return Account(uid, gid, tuple(dict.fromkeys((gid, *groups))), home or "/")


def resolve_groups(account: Account, added: Iterable[str], group: bytes | None) -> tuple[int, ...]:
    """The groups of `account`, and those that --group-add names.

    Raises ConversionError for a name that the image's /etc/group does not have.
    """
    return tuple(dict.fromkeys([*account.groups, *(_explicit_group(name, name, group) for name in added)]))


def _explicit_group(user: str, wanted: str, group: bytes | None) -> int:
    wanted_gid = _number(wanted)
    for fields in _lines(group, 4):
        entry_gid = _number(fields[2]) or 0
        if entry_gid == wanted_gid if wanted_gid is not None else fields[0] == wanted:
            return entry_gid
    if wanted_gid is None:
        raise ConversionError(
            f"the group of USER {user!r} is not in the image's /etc/group, so `docker run` cannot start it "
            "either; rebuild the image with that group, or with a number"
        )
    return wanted_gid


def _number(text: str) -> int | None:
    """As Go's strconv.Atoi: a sign and ASCII digits, nothing else."""
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    return int(text)


def _lines(data: bytes | None, fields: int) -> Iterator[list[str]]:
    """The colon-separated lines of a passwd or group file, filled up to `fields` fields."""
    for line in (data or b"").decode("utf-8", "surrogateescape").split("\n"):
        if stripped := line.strip():
            parts = stripped.split(":")
            yield parts + [""] * (fields - len(parts))
