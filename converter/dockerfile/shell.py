"""The functions at the top of provision.sh, from functions.sh: of each script only those that it calls.

They are POSIX sh, for dash, bash and busybox ash, with the commands of coreutils or busybox; what they mean is
BuildKit's (executor/oci/user.go, solver/llbsolver/ops/user_linux.go, fsutil's copy) and runc's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

_ONLY_NETWORK = re.compile(r"^.* #\[network\]\n", re.MULTILINE)


def functions(called: Iterable[str], *, network: bool = False) -> str:
    """The text of the functions `called`, and of all that these call; `network`: $network is used."""
    wanted: set[str] = set()
    waiting = list(called)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += _called_by(name)
    text = "\n".join(text for name, text in _library().items() if name in wanted)
    return re.sub(r" #\[network\]$", "", text, flags=re.MULTILINE) if network else _ONLY_NETWORK.sub("", text)


@cache
def _library() -> dict[str, str]:
    """Each function with its comment, by its name, in the order of the file."""
    text = files("converter.dockerfile").joinpath("functions.sh").read_text()
    found = re.findall(r"^((?:#.*\n)+([a-z_]+)\(\) [({]\n(?:.+\n)+)", text, re.MULTILINE)
    return {name: function for function, name in found}


@cache
def _called_by(name: str) -> tuple[str, ...]:
    """The functions that a function calls; comments and messages call none."""
    code = re.sub(r"^\s*#.*$", "", _library()[name], flags=re.MULTILINE)
    words = set(re.findall(r"(?<![\w/$-])[a-z_]+(?![\w-])", re.sub(r'fail ".*?"', "fail", code)))
    return tuple(other for other in _library() if other in words)
