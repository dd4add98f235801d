"""The programs that are compared: how each makes a tree of an input, and when it cannot be had here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache import Input
from benchmarks.image import TAG

FLOOR = "tar"
PROGRAM = Path(sys.executable).with_name("docker2nspawn")
# What importd runs for machinectl and importctl; by itself it needs no booted systemd.
_IMPORT = Path("/usr/lib/systemd/systemd-import")


@dataclass(frozen=True)
class Job:
    """One measurement: an input, an empty directory to write in, a container of the input where there is an engine."""

    input: Input
    target: Path
    container: str = ""


@dataclass(frozen=True)
class Tool:
    """`script` gives bash commands; the tree is made at `tree` below the target. `missing` says why it cannot run."""

    name: str
    label: str
    form: str
    script: Callable[[Job], str]
    tree: str
    missing: Callable[[], str]
    docker: bool = False


def _program(*names: str) -> Callable[[], str]:
    def missing() -> str:
        absent = [name for name in names if shutil.which(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else ""

    return missing


def _ours(source: Callable[[Job], str]) -> Callable[[Job], str]:
    return lambda job: f"exec {_words(PROGRAM, 'convert', source(job), '--root', job.target, '--name', 'm')}"


def _words(*words: object) -> str:
    return shlex.join(str(word) for word in words)


def _tar_from(producer: str, job: Job) -> str:
    return f"mkdir {_words(job.target / 'tree')}; {producer} | tar -x -C {_words(job.target / 'tree')}"


def _extract(program: str) -> Callable[[Job], str]:
    def script(job: Job) -> str:
        tree = job.target / "tree"
        return f"mkdir {_words(tree)}; exec {_words(program, '-xf', job.input.flat, '-C', tree)}"

    return script


def _umoci_raw(job: Job, layout: Path) -> str:
    return _words("umoci", "raw", "unpack", "--image", f"{layout}:{TAG}", job.target / "tree")


def _skopeo_umoci(job: Job) -> str:
    layout = job.target / "oci"
    copy = _words(
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        f"docker-archive:{job.input.docker_archive}",
        f"oci:{layout}:{TAG}",
    )
    return f"{copy}; {_umoci_raw(job, layout)}"


def _undocker(job: Job) -> str:
    # There are two programs of that name, in Go and in Python.
    shown = subprocess.run(["undocker", "--help"], capture_output=True, text=True, check=False)
    if "--output" in shown.stdout + shown.stderr:
        tree = _words(job.target / "tree")
        return f"mkdir {tree}; undocker -o {tree} < {_words(job.input.docker_archive)}"
    return _tar_from(_words("undocker", job.input.docker_archive, "-"), job)


def _import_missing() -> str:
    return "" if _IMPORT.exists() else "systemd-import (package systemd-container) not installed"


_TREE_OF_OURS = "var/lib/machines/m"

TOOLS = (
    Tool(FLOOR, "**tar -x**, the floor", "flattened tar", _extract("tar"), "tree", _program("tar")),
    Tool(
        "ours-oci",
        "**docker2nspawn** oci:",
        "OCI layout, gzip",
        _ours(lambda job: f"oci:{job.input.oci}:{TAG}"),
        _TREE_OF_OURS,
        lambda: "",
    ),
    Tool(
        "ours-archive",
        "**docker2nspawn** docker-archive:",
        "docker save",
        _ours(lambda job: f"docker-archive:{job.input.docker_archive}"),
        _TREE_OF_OURS,
        lambda: "",
    ),
    Tool(
        "ours-daemon",
        "**docker2nspawn** docker-daemon: ¹",
        "Docker Engine",
        _ours(lambda job: f"docker-daemon:{job.input.reference}"),
        _TREE_OF_OURS,
        lambda: "",
        docker=True,
    ),
    Tool(
        "docker-export",
        "docker export \\| tar -x ¹",
        "Docker Engine",
        lambda job: _tar_from(_words("docker", "export", job.container), job),
        "tree",
        _program("docker"),
        docker=True,
    ),
    Tool("bsdtar", "bsdtar -x", "flattened tar", _extract("bsdtar"), "tree", _program("bsdtar")),
    Tool(
        "systemd-import",
        "importctl import-tar ²",
        "flattened tar",
        lambda job: f"exec {_words(_IMPORT, 'tar', f'--image-root={job.target}', job.input.flat, 'm')}",
        "m",
        _import_missing,
    ),
    Tool(
        "umoci-raw",
        "umoci raw unpack",
        "OCI layout, gzip",
        lambda job: f"exec {_umoci_raw(job, job.input.oci)}",
        "tree",
        _program("umoci"),
    ),
    Tool(
        "umoci",
        "umoci unpack",
        "OCI layout, gzip",
        lambda job: (
            f"exec {_words('umoci', 'unpack', '--image', f'{job.input.oci}:{TAG}', job.target / 'bundle')}"
        ),
        "bundle/rootfs",
        _program("umoci"),
    ),
    Tool(
        "skopeo-umoci",
        "skopeo copy; umoci raw unpack",
        "docker save",
        _skopeo_umoci,
        "tree",
        _program("skopeo", "umoci"),
    ),
    Tool("undocker", "undocker", "docker save", _undocker, "tree", _program("undocker")),
)
