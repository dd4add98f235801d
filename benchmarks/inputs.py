"""Makes the images that are measured, from fixed lists of Debian packages.

As a program: `python -m benchmarks.inputs NAME…` makes what is missing.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cache, image, packages

_BASE = (
    "base-files base-passwd bash dash coreutils libc6 libc-bin dpkg apt perl-base sed grep tar util-linux login passwd "
    "libssl3 openssl ca-certificates tzdata debconf debianutils findutils gzip hostname libpam-modules"
)

# Each string is a layer, each word a package.
_MIXED = (
    f"{_BASE} locales debian-keyring",
    "gcc-12 g++-12 cpp-12 binutils-x86-64-linux-gnu libc6-dev libstdc++-12-dev linux-libc-dev git perl-modules-5.36 "
    "libperl5.36 perl-doc",
    "libllvm14 libclang-common-14-dev",
    "openjdk-17-jre-headless openjdk-17-jdk-headless openjdk-17-source libicu4j-java liblucene8-java",
    "libpython3.11-stdlib libpython3.11-minimal python3-numpy python3-scipy python3-django",
    "vim-runtime emacs-el",
    "adwaita-icon-theme oxygen-icon-theme fonts-noto-cjk node-babel7 node-core-js npm",
)
_SMALL = (
    "golang-1.19-src qt6-base-dev",
    "ruby3.1-doc libruby3.1 python3-django perl-modules-5.36 perl-doc cmake-data vim-runtime",
    "node-babel7 node-core-js node-lodash libjs-mathjax npm",
    "breeze-icon-theme adwaita-icon-theme numix-icon-theme-circle elementary-xfce-icon-theme",
    "tzdata manpages manpages-dev manpages-de manpages-es manpages-fr manpages-ja manpages-pl",
)
_LARGE = (
    "chromium",
    "firefox-esr fonts-noto-cjk",
    "qemu-system-misc libllvm14",
    "libreoffice-core libqt6webenginecore6",
)
# A layer for each.
_ONE_EACH = (
    "git perl-modules-5.36 libpython3.11-stdlib python3-numpy python3-pygments python3-django python3-pandas "
    "python3-sympy python3-sklearn python3-matplotlib vim-runtime erlang-base libicu72 libnode108 npm cmake-data "
    "postgresql-15 perl-doc adwaita-icon-theme locales manpages manpages-dev manpages-de node-babel7 node-core-js "
    "node-lodash libruby3.1 texlive-latex-base libjs-mathjax ansible-core node-undici fonts-dejavu-core groff-base "
    "python3-docutils libc6-dev libstdc++-12-dev linux-libc-dev docbook-xsl python3-boto3"
)
_OVERWRITE = (_BASE, *_ONE_EACH.split())

_CHANGES_OF_A_LAYER = {"overwritten": 150, "deleted": 75, "directories": 2, "opaque": 1}


@dataclass(frozen=True)
class Recipe:
    """What an input is made of. `changed`: layers also overwrite and delete what is below them."""

    about: str
    layers: Sequence[str]
    changed: bool = False


RECIPES = {
    "mixed": Recipe("an image as many are: toolchains, languages, libraries, documentation, data", _MIXED),
    "small": Recipe("many small files: headers, scripts, documentation, icons, manuals", _SMALL),
    "large": Recipe("few large files: browsers, emulators, libraries", _LARGE),
    "overwrite": Recipe("many layers that overwrite and delete what earlier ones have", _OVERWRITE, True),
}


def _make(name: str, directory: Path) -> None:
    recipe = RECIPES[name]
    scratch = directory.parent
    debs = packages.download((word for text in recipe.layers for word in text.split()), scratch / "packages")
    tree = scratch / "tree"
    tree.mkdir()
    status = ""
    layers: list[image.Layer] = []
    for number, text in enumerate(recipe.layers):
        content = scratch / f"layer-{number}"
        content.mkdir()
        for package in (debs[word] for word in text.split() if word in debs):
            packages.unpack(package, content)
            status += packages.status_entry(package)
        # As with apt in a Dockerfile, every layer has dpkg's data base anew.
        database = content / "var/lib/dpkg/status"
        database.parent.mkdir(parents=True, exist_ok=True)
        database.write_text(status)
        if recipe.changed and number:
            _change(tree, content, random.Random(number))
        layer = image.pack(content, scratch / f"{number}.tar")
        image.apply(layer, content, tree)
        subprocess.run(["rm", "-rf", "--", content], check=True)
        layers.append(layer)
    cache.write_forms(cache.Input(name, directory), layers, tree)


def _change(tree: Path, content: Path, chance: random.Random) -> None:
    """Add to a layer's `content` what overwrites and hides parts of `tree`, always the same for the same inputs."""
    files: list[Path] = []
    directories: list[Path] = []
    for directory, _, names in sorted(os.walk(tree)):
        relative = Path(directory).relative_to(tree)
        files += [relative / name for name in sorted(names)]
        if len(relative.parts) >= 4 and 5 <= len(names) <= 100 and not (content / relative).exists():
            directories.append(relative)
    chance.shuffle(files)
    chance.shuffle(directories)
    gone: list[Path] = []
    while directories and len(gone) < _CHANGES_OF_A_LAYER["directories"] + _CHANGES_OF_A_LAYER["opaque"]:
        candidate = directories.pop()
        if not any(candidate.is_relative_to(one) or one.is_relative_to(candidate) for one in gone):
            gone.append(candidate)

    for relative in gone[_CHANGES_OF_A_LAYER["opaque"] :]:
        _whiteout(tree, content, relative)
    for relative in gone[: _CHANGES_OF_A_LAYER["opaque"]]:
        image.mirror_directories(tree, content, relative / "inside")
        (content / relative / ".wh..wh..opq").touch()
        for number in range(5):
            (content / relative / f"new-{number}").write_text(f"{relative} {number}\n" * 100)

    left = [file for file in files if not any(file.is_relative_to(one) for one in gone)]
    left = [file for file in left if not os.path.lexists(content / file)]
    for relative in left[: _CHANGES_OF_A_LAYER["deleted"]]:
        _whiteout(tree, content, relative)
    regular = [file for file in left if (tree / file).is_file() and not (tree / file).is_symlink()]
    hidden = set(left[: _CHANGES_OF_A_LAYER["deleted"]])
    overwritten = [file for file in regular if file not in hidden]
    for relative in overwritten[: _CHANGES_OF_A_LAYER["overwritten"]]:
        image.mirror_directories(tree, content, relative)
        (content / relative).write_bytes((tree / relative).read_bytes()[::-1])
        image.copy_metadata(tree / relative, content / relative)


def _whiteout(tree: Path, content: Path, relative: Path) -> None:
    image.mirror_directories(tree, content, relative)
    (content / relative.parent / f".wh.{relative.name}").touch()


if __name__ == "__main__":
    cache.make_missing(sys.argv[1:], _make)
