"""Single values as Go's libraries, and so Docker, read them: durations, sizes, signals, ports, truth values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 60 * _UNITS["m"]
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([^0-9.]+)")
_LONGEST_NUMBER = 40  # digits; far beyond what any unit allows
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgtp])i?b?|b)?", re.IGNORECASE | re.ASCII)
_SIGNAL = re.compile(
    r"ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP"
    r"|TSTP|TTIN|TTOU|URG|USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?"
)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def parse_duration(text: str) -> int:
    """Read `1h30m`, `1.5s`, `300ms` (Go's time.ParseDuration) as nanoseconds. Raises ValueError."""
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    total = 0
    position = 0
    while match := _DURATION.match(rest, position):
        if match[2] not in _UNITS:
            raise ValueError(f"unknown unit '{match[2]}' in duration '{text}'")
        if len(match[1]) > _LONGEST_NUMBER:
            raise ValueError(f"invalid duration '{text}'")
        total += int(Decimal(match[1]) * _UNITS[match[2]])
        position = match.end()
    if position != len(rest) or not rest:
        if re.fullmatch(r"[0-9.]+", rest[position:]):
            raise ValueError(f"missing unit in duration '{text}'")
        raise ValueError(f"invalid duration '{text}'")
    if total >= 1 << 63:
        raise ValueError(f"invalid duration '{text}'")
    return -total if text.startswith("-") else total


def parse_size(text: str) -> int:
    """Read `64m`, `1.5GiB`, `1024` as bytes; units are powers of 1024 (go-units). Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > _LONGEST_NUMBER:
        raise ValueError(f"invalid size '{text}'")
    power = "kmgtp".index(match[2].lower()) + 1 if match[2] else 0
    return int(Decimal(match[1]) * 1024**power)


def parse_truth(text: str) -> bool:
    """Read a truth value as Go's strconv.ParseBool does. Raises ValueError."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"'{text}' is neither true nor false")


def is_signal(text: str) -> bool:
    """Whether STOPSIGNAL takes it: SIGTERM, TERM, 15, SIGRTMIN+3."""
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return bool(text.lstrip("+-0")) and len(text) < 19
    return _SIGNAL.fullmatch(text.upper().removeprefix("SIG")) is not None


def parse_ports(text: str) -> Iterator[str]:
    """Read what EXPOSE takes, `80`, `53/udp`, `8000-8010/tcp`, `8080:80`, as `80/tcp`, one by one.

    A host's port and address, which Docker allows and ignores, are checked no further. Raises ValueError.
    """
    port = text.rpartition(":")[2]
    number, _, protocol = port.partition("/")
    protocol = protocol.partition("/")[0].lower() or "tcp"
    match = _PORTS.fullmatch(number)
    if match is None:
        raise ValueError(f"'{text}' is not a port")
    first, last = int(match[1]), int(match[2] or match[1])
    if last > 65535 or first > 65535:
        raise ValueError(f"'{text}' is not a port: they go up to 65535")
    if last < first:
        raise ValueError(f"'{text}' is not a range of ports: it ends before it begins")
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"'{text}' has no protocol that Docker knows")
    return (f"{number}/{protocol}" for number in range(first, last + 1))
