"""Feeds the reader of tar headers with any bytes, guided by coverage: fuzz/run tar [SECONDS]."""

from __future__ import annotations

import shlex
import sys

import atheris

with atheris.instrument_imports(include=["converter.rootfs.tar"]):
    from fuzz.checks import check_tar
from fuzz.mutate import mutated


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    return mutated(data, most, seed, atheris.Mutate)


def main() -> None:
    """Arguments are libFuzzer's."""
    # The first one is how libFuzzer starts itself again, through a shell, to find the least inputs.
    atheris.Setup(
        [f"{shlex.quote(sys.executable)} -m fuzz.fuzz_tar", *sys.argv[1:]], check_tar, custom_mutator=_mutate
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
