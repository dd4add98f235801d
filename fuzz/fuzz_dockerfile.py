"""Feeds the reader of Dockerfiles with any bytes, guided by coverage: fuzz/run dockerfile [SECONDS]."""

from __future__ import annotations

import shlex
import sys

import atheris

with atheris.instrument_imports(include=["converter.dockerfile"]):
    from fuzz.dockerfile_checks import check_dockerfile


def main() -> None:
    """Arguments are libFuzzer's."""
    # The first one is how libFuzzer starts itself again, through a shell, to find the least inputs.
    atheris.Setup([f"{shlex.quote(sys.executable)} -m fuzz.fuzz_dockerfile", *sys.argv[1:]], check_dockerfile)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
