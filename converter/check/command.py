"""`docker2nspawn check`: the findings on stdout, for people or for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from converter.check import check


def run(name: str, root: Path, *, as_json: bool) -> int:
    """Print what is wrong with machine `name` below `root`, one line each; the exit code, 1 when there are problems.

    As JSON it is {"name": …, "root": …, "findings": [{"severity": …, "subject": …, "text": …, "remedy": …}]}.
    Raises ConversionError as `check` does.
    """
    findings = check(name, root)
    if as_json:
        answer = {"name": name, "root": str(root), "findings": [asdict(finding) for finding in findings]}
        json.dump(answer, sys.stdout, indent=2, ensure_ascii=True)
        sys.stdout.write("\n")
    else:
        lines = [finding.line for finding in findings] or [f"{name}: nothing found that would go wrong"]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return int(any(finding.severity == "problem" for finding in findings))
