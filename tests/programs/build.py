"""The images of real programs: built once on this machine's engine, which has a network, then kept as one tar."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests import lab

IMAGES = Path(__file__).with_name("images")
PREFIX = "lab-programs"
NAMES = tuple(sorted(path.name for path in IMAGES.iterdir() if (path / "Dockerfile").exists()))


def tarball(work: Path, docker_host: str) -> Path:
    """All images as `docker save` writes them, from the cache or built now (about 2 minutes, 150 MB of packages)."""
    base = lab.root_tarball("debian")
    path = lab.CACHE / f"programs-{_mark(base)}.tar"
    if path.exists():
        return path
    if lab.run(
        "docker", "image", "inspect", "debian:bookworm", check=False, DOCKER_HOST=docker_host
    ).returncode:
        lab.run("docker", "import", base, "debian:bookworm", DOCKER_HOST=docker_host, timeout=300)
    for name in NAMES:
        context = work / "programs" / name
        shutil.copytree(IMAGES / name, context)
        for source in context.glob("*.c"):
            lab.run(
                "gcc",
                "-static",
                "-Os",
                "-s",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-o",
                source.with_suffix(""),
                source,
            )
        # The host's network: where the engine runs in a container, builds have none of their own.
        command = ("docker", "build", "--quiet", "--network=host", "--tag", f"{PREFIX}/{name}", context)
        lab.run(*command, DOCKER_HOST=docker_host, DOCKER_BUILDKIT="0", timeout=600)
    with tempfile.TemporaryDirectory(dir=lab.CACHE, prefix=".making-") as making:
        made = Path(making) / "programs.tar"
        tags = [f"{PREFIX}/{name}" for name in NAMES]
        lab.run("docker", "save", "--output", made, *tags, DOCKER_HOST=docker_host, timeout=300)
        made.replace(path)
    return path


def _mark(base: Path) -> str:
    """Changes with every file that goes into the images."""
    digest = hashlib.sha256(base.name.encode())
    for path in sorted(path for path in IMAGES.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(IMAGES)} {path.stat().st_mode:o}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
