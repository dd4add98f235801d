"""A Dockerfile as the source of a machine: found, read, built here, and its tree put together."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from converter.dockerfile.build import Builder, Settings, assemble
from converter.dockerfile.choices import BuildChoices
from converter.dockerfile.context import open_context
from converter.dockerfile.model import ImageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.errors import ConversionError
from converter.image.model import Image, Platform
from converter.image.reference import parse_reference
from converter.note import Note
from converter.places import Places
from converter.progress import Progress
from converter.rootfs.merge import Limits

OpenImage = Callable[[str, Platform | None, Path], Image]
"""Takes the image of a SOURCE, for a platform (None: this machine's), into a directory."""

_NAMES = ("Dockerfile", "dockerfile", "Containerfile")
_LARGEST_SECRET = 500 * 1024  # bytes, BuildKit's own limit
_LARGEST = 16 << 20  # bytes of a Dockerfile
_ALL = "image"


def build_tree(
    path: Path,
    choices: BuildChoices,
    tree: Path,
    *,
    platform: Platform,
    places: Places,
    spool: Path,
    limits: Limits,
    open_image: OpenImage,
    output: Callable[[str, bytes], None] | None,
    progress: Progress,
) -> tuple[Image, tuple[Note, ...]]:
    """Build the Dockerfile at `path` and put its target's tree into the empty directory `tree`.

    The Image has no layers. `output` gets what a RUN prints. Raises ConversionError; DockerfileError with its place.
    """
    dockerfile, directory = locate(path, choices.file)
    text = read(str(dockerfile), read_file(dockerfile))
    context = open_context(directory, dockerfile)
    given = given_bases(choices.bases)
    settings = Settings(
        image=_images(given, open_image),
        identity=lambda source: _identity(given.get(source.name) or source.name),
        made_here=lambda source: _ALL not in given and source.name not in given,
        mirror=choices.mirror,
        use_cache=not choices.no_cache,
        pull=choices.pull,
        chroot=choices.chroot,
        secrets=dict(_secret(text) for text in choices.secrets),
        agents=dict(_agent(text) for text in choices.agents),
        allow=frozenset(choices.allow),
        output=output,
        debug_shell=choices.debug_shell,
        limits=limits,
    )
    options = BuildOptions(
        target=choices.target, build_args=build_arguments(choices.build_args), platform=platform
    )
    with Builder(places, settings, spool, progress) as builder:
        recipe = evaluate(text, options, builder.base_config)
        built = builder.build(recipe, context)
        assemble(built, tree)
    image = Image(f"dockerfile:{dockerfile}", None, recipe.target.platform, built.config, ())
    return image, (*built.notes, *(Note("adapted", "Dockerfile", warning) for warning in recipe.warnings))


def locate(path: Path, file: Path | None) -> tuple[Path, Path]:
    """The Dockerfile and the build context of SOURCE `path`, a folder or a Dockerfile in its folder.

    With `file` it is that one, and `path` the context. Raises ConversionError when there is none.
    """
    if file is not None:
        if not path.is_dir():
            raise ConversionError(f"'{path}' is not a folder; with --file, SOURCE is the build context")
        return file, path
    if not path.is_dir():
        return path, path.parent
    for name in _NAMES:
        if (path / name).exists():
            return path / name, path
    raise ConversionError(f"there is no Dockerfile in '{path}'; name it with --file")


def read_file(dockerfile: Path) -> bytes:
    """The bytes of a Dockerfile. Raises ConversionError when it is no file, cannot be read, or is far too large."""
    try:
        # Not blocking: it may be a pipe, and nobody writes to it.
        with os.fdopen(os.open(dockerfile, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConversionError(f"'{dockerfile}' is not a file; give the path of a Dockerfile")
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not valid"
        raise ConversionError(f"cannot read the Dockerfile '{dockerfile}': {reason}") from None
    if len(data) > _LARGEST:
        raise ConversionError(f"'{dockerfile}' has more than {_LARGEST >> 20} MiB; that is no Dockerfile")
    return data


def build_arguments(texts: Iterable[str]) -> dict[str, str]:
    """--build-arg NAME=VALUE, or NAME for the variable of that name, if there is one."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise ConversionError(f"--build-arg {text!r} has no name; write NAME=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def given_bases(texts: Iterable[str]) -> dict[str, str]:
    """--base NAME=SOURCE, by the names; "image" is a key of its own."""
    found = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if text != _ALL and not (name and equals and source):
            raise ConversionError(
                f"--base {text!r}: write NAME=SOURCE, or image for the images that FROM names"
            )
        found[name] = source
    return found


def _images(given: Mapping[str, str], open_image: OpenImage) -> Callable[[ImageSource, Path], Image]:
    def image(source: ImageSource, spool: Path) -> Image:
        return open_image(given.get(source.name) or source.name, source.platform, spool)

    return image


def _identity(source: str) -> str:
    """What an image's SOURCE stands for now, as far as that can be told at once; a registry's is told by its name."""
    reference = parse_reference(source)
    if reference.transport in {"image", "docker-daemon"}:
        from converter.image import daemon  # here, because Docker's SDK takes long to load

        return f"{reference} {daemon.image_id(reference.name)}"
    if reference.transport in {"docker-archive", "oci-archive", "oci"}:
        path = Path(reference.name)
        with suppress(OSError):
            status = (path / "index.json" if path.is_dir() else path).stat()
            return f"{reference.full()} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    return reference.full()


def _secret(text: str) -> tuple[str, bytes]:
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    name = fields.pop("id", "")
    kind = fields.pop("type", None)
    path = fields.pop("src", fields.pop("source", None))
    variable = fields.pop("env", None)
    if not name or fields or kind not in {None, "file", "env"}:
        raise ConversionError(f"--secret {text!r}: write id=ID,src=FILE or id=ID,env=NAME")
    if kind == "env" and path is not None:
        path, variable = None, path
    if variable is None and path is None and kind != "file" and name in os.environ:
        variable = name
    if variable is not None:
        if variable not in os.environ:
            raise ConversionError(f"--secret {name}: there is no variable {variable} in the environment")
        return name, os.environb[os.fsencode(variable)]
    try:
        with Path(path or name).expanduser().open("rb") as file:
            data = file.read(_LARGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        raise ConversionError(f"--secret {name}: cannot read {path or name}: {error}") from None
    if len(data) > _LARGEST_SECRET:
        raise ConversionError(f"--secret {name}: {path or name} has more than {_LARGEST_SECRET >> 10} KiB")
    return name, data


def _agent(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    socket = Path(path or os.environ.get("SSH_AUTH_SOCK", ""))
    if not name or not socket.is_socket():
        raise ConversionError(f"--ssh {text!r}: give an agent's socket: default=$SSH_AUTH_SOCK")
    return name, socket
