"""The machine that a Dockerfile describes, as long as nobody has built it: its settings, files and what is in them.

What only the finished tree can tell is assumed, and noted; build.sh looks up the account when the tree is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from converter.dockerfile.bases import Base
from converter.dockerfile.blocks import account
from converter.dockerfile.output import own_version
from converter.image.model import Image, ImageConfig, Platform, this_platform
from converter.machine.facts import Facts
from converter.machine.mapping import Mapped, RunOptions, map_image
from converter.machine.model import TreeChange
from converter.machine.settings import ignored_untrusted, render
from converter.machine.unit import render_drop_in
from converter.note import Note

UID, GID, GROUP, HOME = "2147480001", "2147480002", "2147480003", "/docker2nspawn-home-of-user"
"""What stands in templates for the account's; no Dockerfile has these by chance."""

_FIRST_ID = 1000  # of the first account that useradd and adduser make
# The groups of root in alpine's /etc/group; elsewhere it is in no other.
_ALPINE_GROUPS = (1, 2, 3, 4, 6, 10, 11, 20, 26, 27)


@dataclass(frozen=True)
class Generated:
    """A file of the machine: `path` below the host's root, and with `template` the same with UID, GID, … in it."""

    path: str
    content: bytes
    mode: int
    template: bytes | None = None


@dataclass(frozen=True)
class Described:
    """`settings` is NAME.nspawn; `trusted`: nspawn takes all of it only from /etc/systemd/nspawn.

    `files` are all others, `changes` what is done to the tree.
    """

    settings: Generated
    trusted: bool
    files: tuple[Generated, ...]
    changes: tuple[TreeChange, ...]
    notes: tuple[Note, ...]


def describe(
    config: ImageConfig, platform: Platform, base: Base | None, *, name: str, source: str, options: RunOptions
) -> Described:
    """Decide about the machine `name`. `base` None: it is made of no distribution that is known.

    Raises ConversionError for a config that `docker run` would refuse too.
    """
    heading = f"Made by docker2nspawn from {source}"
    image = Image(source, None, platform, config, ())

    def mapped(facts: Facts) -> Mapped:
        return map_image(
            image,
            facts,
            name=name,
            host=this_platform(),
            heading=heading,
            options=replace(options, volumes="none"),
        )

    assumed, open_ = mapped(_assumed(config, base)), mapped(_open(config, base))
    paths = (
        f"var/lib/machines/{name}.nspawn",
        f"etc/systemd/system/systemd-nspawn@{name}.service.d/docker2nspawn.conf",
    )
    secret = 0o600 if assumed.machine.secret else 0o644
    texts = [(paths[0], render(one.machine, heading), secret) for one in (assumed, open_)]
    settings, *files = (
        Generated(path, content, mode, template if template != content else None)
        for (path, content, mode), (_, template, _) in zip(
            _contents(assumed, texts[0], paths[1], heading),
            _contents(open_, texts[1], paths[1], heading),
            strict=True,
        )
    )
    ignored = ignored_untrusted(assumed.machine)
    notes = [note for note in assumed.notes if note.subject != f"USER {config.user}"]
    if config.user:
        notes.append(_user_note(config.user, _assumed(config, base)))
    if ignored:
        notes.append(
            Note("adapted", "trust", f"build.sh --install links the settings file from /etc/systemd/nspawn, so that "
                 f"nspawn honours its {', '.join(ignored)}")
        )  # fmt: skip
    record = f"var/lib/docker2nspawn/machines/{name}.json"
    files.append(Generated(record, _record(image, assumed, name, notes), 0o600))
    return Described(settings, bool(ignored), tuple(files), assumed.changes, tuple(notes))


def _record(image: Image, mapped: Mapped, name: str, notes: Sequence[Note]) -> bytes:
    """What is kept of every machine, as `convert` writes it."""
    record = {
        "version": own_version(),
        "name": name,
        "reference": image.source,
        "source": image.source,
        "digest": None,
        "platform": str(image.platform),
        "systemd": mapped.systemd,
        "address": mapped.machine.address,
        "volumes": [],
        "options": {},
        "config": asdict(image.config),
        "container": None,
        "notes": [asdict(note) for note in notes],
    }
    return (json.dumps(record, indent=2) + "\n").encode()


def _contents(
    mapped: Mapped, settings: tuple[str, str, int], drop_in: str, heading: str
) -> Iterator[tuple[str, bytes, int]]:
    path, text, mode = settings
    yield path, text.encode("utf-8", "surrogateescape"), mode
    yield drop_in, render_drop_in(mapped.machine, heading).encode("utf-8", "surrogateescape"), 0o644
    for file in mapped.files:
        yield file.path, file.content, file.mode


def _facts(config: ImageConfig, base: Base | None, passwd: Sequence[str], group: Sequence[str]) -> Facts:
    mentioned = {path for path in (config.working_dir, *config.volumes) if path}
    command = (*config.entrypoint, *config.cmd)
    program = None
    if command:  # if it is not there, provision.sh ran all the same, and the machine says so
        program = command[0] if command[0].startswith("/") else f"/usr/bin/{command[0]}"
    return Facts(
        passwd="".join(f"{line}\n" for line in passwd).encode("utf-8", "surrogateescape"),
        group="".join(f"{line}\n" for line in group).encode("utf-8", "surrogateescape"),
        directories=frozenset(mentioned if base is not None else ()),
        program=program,
        has_usr=base is not None,
        has_os_release=base is not None,
    )


def _assumed(config: ImageConfig, base: Base | None) -> Facts:
    """With root as the base has it, and for another name the account that the first useradd makes."""
    user, wanted = account(config.user)
    passwd = ["root:x:0:0:root:/root:/bin/sh"] if base is not None or user == "root" else []
    alpine = base is not None and base.distribution == "alpine"
    group = ["root:x:0:", *(f"g{gid}:x:{gid}:root" for gid in _ALPINE_GROUPS if alpine)]
    if user and user != "root" and not user.isdigit():
        passwd.append(f"{user}:x:{_FIRST_ID}:{_FIRST_ID}::/home/{user}:/bin/sh")
    if wanted and wanted != "root" and not wanted.isdigit():
        group.append(f"{wanted}:x:{_FIRST_ID}:")
    return _facts(config, base, passwd, group)


def _open(config: ImageConfig, base: Base | None) -> Facts:
    """With marks for all that is not certain."""
    user, wanted = account(config.user)
    user = user or "0"
    if user.isdigit():
        name, uid = "d2n", user
    else:
        name, uid = user, "0" if user == "root" else UID
    group = [f"{wanted}:x:{GID}:"] if wanted and not wanted.isdigit() else []
    return _facts(config, base, [f"{name}:x:{uid}:{GID}::{HOME}:/bin/sh"], [f"d2ng:x:{GROUP}:{name}", *group])


def _user_note(user: str, facts: Facts) -> Note:
    name, group = account(user)
    if name.isdigit() and group.isdigit():
        return Note("exact", f"USER {user}", f"uid {name}, gid {group}")
    if name in {"", "0", "root"} and not group:
        return Note("exact", f"USER {user}", "root")
    text = (
        "build.sh looks it up in the tree, and puts its uid, gid, groups and home directory into the settings"
    )
    if not name.isdigit() and name != "root":
        text += f"; until then they have {_FIRST_ID}, which is what the first useradd or adduser gives"
    return Note("adapted", f"USER {user}", text)
