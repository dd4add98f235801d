"""Are the trees of two roots the same, machine by machine? Compared by processes that end, for their memory's sake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.measure import Failed
from tests.trees import Facts, facts

MACHINES = "var/lib/machines"
# What goes with a tree: settings, units and drop-ins, the network's script.
_SETTINGS = (
    f"{MACHINES}/{{name}}.nspawn",
    "etc/systemd/system/*@{name}.*",
    "etc/systemd/system/*@{name}.*.d/*",
    "var/lib/docker2nspawn/machines/{name}.network",
)


def require_same(first: Path, second: Path, names: Sequence[str]) -> None:
    """Raise Failed with the first differences, in the trees or in the settings of these machines."""
    with ProcessPoolExecutor() as pool:
        for name, found in zip(names, pool.map(partial(_differences, first, second), names), strict=True):
            if found:
                raise Failed(f"{name} differs:\n" + "\n".join(found))


def _differences(first: Path, second: Path, name: str) -> list[str]:
    found = _differing(_tree(first / MACHINES / name), _tree(second / MACHINES / name))
    return found + _differing(_settings(first, name), _settings(second, name))


def _tree(tree: Path) -> Mapping[bytes, Facts]:
    try:
        return facts(tree)
    except AssertionError as error:
        raise Failed(f"{tree}: {error}") from None


def _settings(root: Path, name: str) -> Mapping[bytes, str]:
    """The machine's files; what names the root itself does not count."""
    files = [path for pattern in _SETTINGS for path in root.glob(pattern.format(name=name)) if path.is_file()]
    return {str(path.relative_to(root)).encode(): path.read_text().replace(str(root), "") for path in files}


def _differing(first: Mapping[bytes, object], second: Mapping[bytes, object], limit: int = 5) -> list[str]:
    names = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return [
        f"{name.decode(errors='replace')}: {first.get(name)} and {second.get(name)}" for name in names[:limit]
    ]
