"""ADD of a git repository: fetched and checked out by git(1), as BuildKit's source/git does it.

Of the host only git itself is used: no configuration, no hooks, no local repositories, also not by submodules.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from converter.dockerfile.context import Source, View
from converter.dockerfile.ignore import matcher
from converter.dockerfile.model import Copy
from converter.dockerfile.selecting import entries_below
from converter.dockerfile.selection import Item
from converter.dockerfile.tree import clean

_PROTOCOLS = ("http", "https", "ssh", "git")
_URL = re.compile(rf"({'|'.join(_PROTOCOLS)})://[^#]+", re.IGNORECASE).match
_SCP = re.compile(r"[A-Za-z0-9_-]+@[A-Za-z0-9.-]+:[^#]*").match
_COMMIT = re.compile(r"[0-9a-f]{40}").fullmatch
_SAID = 300  # characters of what git says


@dataclass(frozen=True)
class Repository:
    """`URL#REF:SUBDIRECTORY`. `ref` "" is the repository's own HEAD."""

    url: str
    ref: str = ""
    subdirectory: str = ""


def parse_repository(text: str) -> Repository | None:
    """A source of ADD as a git repository; None when it is none: an http URL is one if its path ends in .git."""
    url, _, fragment = text.partition("#")
    match = _URL(url)
    if match is None:
        if _SCP(text) is None or text.startswith("-"):
            return None
    elif match[1].lower() in {"http", "https"} and not url.partition("?")[0].endswith(".git"):
        return None
    ref, _, subdirectory = fragment.partition(":")
    return Repository(url, ref, clean(subdirectory))


def fetch_repository(step: Copy, repository: Repository, place: Path) -> Item:
    """Check it out into the new directory `place`. Raises DockerfileError."""
    if repository.ref.startswith("-"):
        raise step.instruction.error(f"{repository.ref!r} is no name of a branch, tag or commit")
    if place.exists():
        shutil.rmtree(place)
    keeps = step.keep_git_dir and not repository.subdirectory
    tree = place / "tree"
    tree.mkdir(mode=0o755, parents=True)
    git = _Git(step, repository, tree, tree / ".git" if keeps else place / "git")
    git.run("init", "--quiet", "--template=", "--initial-branch=master")
    git.run("remote", "add", "origin", repository.url)
    git.run("checkout", "--quiet", "--detach", git.fetch(repository.ref or "HEAD"))
    git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    commit = git.run("rev-parse", "HEAD").strip()
    if step.checksum and not commit.startswith(step.checksum):
        raise step.instruction.error(f"{repository.url!r} is at the commit {commit}, not {step.checksum}")
    if keeps:  # as BuildKit: nothing of when and how it was fetched
        git.run("reflog", "expire", "--all", "--expire=now")
        (tree / ".git/FETCH_HEAD").unlink(missing_ok=True)
    with View(Source(tree, repository.url, owned=False)) as view:
        top = view.resolve(repository.subdirectory)
        if not view.exists(top) or not stat.S_ISDIR(view.tree.status(top).st_mode):
            raise step.instruction.error(
                f"{repository.url!r} has no directory {repository.subdirectory!r} at {commit[:12]}"
            )
        entries = tuple(entries_below(view, top, None, matcher(step.exclude)))
    # The commit says it all; git's own files differ each time.
    return Item("", tree, top, entries, identity=f"git {commit} {top!r} {keeps} {step.exclude}")


class _Git:
    """git(1) with one work tree and one directory of its own."""

    def __init__(self, step: Copy, repository: Repository, tree: Path, directory: Path) -> None:
        self._step = step
        self._repository = repository
        self._tree = tree
        self._command = ["git", f"--git-dir={directory}", f"--work-tree={tree}"]
        for setting in ("core.hooksPath=/dev/null", "core.fsmonitor=false", "advice.detachedHead=false"):
            self._command += ["-c", setting]

    def fetch(self, ref: str) -> str:
        """Fetch `ref`, with as little else as the server allows; what to check out."""
        for depth in (["--depth=1"], []):  # not every server can leave history out
            done = self._try("fetch", "--quiet", "--no-tags", *depth, "--", "origin", ref)
            if done.returncode == 0:
                return "FETCH_HEAD"
        if _COMMIT(ref):  # nor give a commit that is no branch
            done = self._try("fetch", "--quiet", "origin", "+refs/*:refs/all/*")
            if done.returncode == 0:
                return ref
        raise self._error(done, f"cannot fetch {ref!r} of {self._repository.url!r}")

    def run(self, *arguments: str) -> str:
        """What it writes. Raises DockerfileError."""
        done = self._try(*arguments)
        if done.returncode != 0:
            raise self._error(done, f"git {arguments[0]} of {self._repository.url!r} failed")
        return done.stdout

    def _try(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(_PROTOCOLS),
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        }
        for name in (
            "SSH_AUTH_SOCK",
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
        ):
            if name in os.environ:
                environment[name] = os.environ[name]
        try:
            return subprocess.run(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                check=False,
                cwd=self._tree,
                env=environment,
                umask=0o022,
            )
        except FileNotFoundError:
            raise self._step.instruction.error(
                "ADD of a git repository needs git, which is not on this host", "install it"
            ) from None

    def _error(self, done: subprocess.CompletedProcess[str], what: str) -> Exception:
        said = " ".join(done.stderr.split())[-_SAID:] or f"status {done.returncode}"
        return self._step.instruction.error(f"{what}: {said}")
