"""What the fuzzers found or began with (fuzz/seeds), once more through what they check; they need not be installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.checks import check_layers, check_tar
from fuzz.dockerfile_checks import check_dockerfile
from fuzz.first_seeds import stacks, tars

SEEDS = Path(__file__).parent.parent / "fuzz/seeds"
CHECKS: dict[str, Callable[[bytes], int]] = {
    "tar": check_tar,
    "merge": check_layers,
    "dockerfile": check_dockerfile,
}


@pytest.mark.parametrize("target", CHECKS)
def test_the_seeds(target: str) -> None:
    counts = {path.name: CHECKS[target](path.read_bytes()) for path in (SEEDS / target).iterdir()}
    assert sum(count > 0 for count in counts.values()) > 10


def test_the_first_seeds_are_there() -> None:
    for target, seeds in (("tar", tars()), ("merge", stacks())):
        missing = {name for name, _ in seeds} - {path.name for path in (SEEDS / target).iterdir()}
        assert not missing, "python -m fuzz.first_seeds"


def test_the_seeds_are_small() -> None:
    assert sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()) < 1 << 20
