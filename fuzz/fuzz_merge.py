"""Feeds the merging with stacks of layers, guided by coverage: fuzz/run merge [SECONDS]."""

from __future__ import annotations

import shlex
import sys

import atheris

with atheris.instrument_imports(include=["converter.rootfs.tar", "converter.rootfs.merge"]):
    from fuzz.checks import SEPARATOR, check_layers
from fuzz.mutate import mutated


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    return mutated(data, most, seed, atheris.Mutate, SEPARATOR)


def main() -> None:
    """Arguments are libFuzzer's."""
    # The first one is how libFuzzer starts itself again, through a shell, to find the least inputs.
    atheris.Setup(
        [f"{shlex.quote(sys.executable)} -m fuzz.fuzz_merge", *sys.argv[1:]],
        check_layers,
        custom_mutator=_mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
