"""provision.sh: a stage of a Dockerfile as a shell script that makes the tree of its base into that of the stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.dockerfile.blocks import Blocks, Brought, account, initial_environment
from converter.dockerfile.model import ImageSource, Recipe, Run, Stage, StageSource, State
from converter.dockerfile.quoting import comment, data, one_line
from converter.dockerfile.shell import functions

_USAGE = """\
# It runs as root, in the tree that bootstrap.sh has made, with this directory visible there:
#
#     systemd-nspawn --directory=ROOT --bind-ro="$PWD:/mnt" /mnt/{place}provision.sh
#     mount --bind "$PWD" ROOT/mnt && chroot ROOT /mnt/{place}provision.sh
#
# or from outside, with this machine's own tools: ./provision.sh --root ROOT; build.sh does all of it.
#
#     --from STEP   leave out the effects of the steps before STEP: for going on after a failure
#     --root DIR    work in the tree DIR instead of the one that this runs in
#     --list        show the steps that do something
#     --account     show the uid, gid, groups and home directory of the last USER
#     --help        show this
#
# Every RUN has its own shell, with the environment (the function env_N), the user and the directory that it has in
# Docker. Everything that is no command of a RUN is quoted data.\
"""

_OPTIONS = """\
from=1 root='' list='' number='' place='' text='' only_account=''
while [ $# -gt 0 ]; do
    case $1 in
    --from | --root)
        [ $# -gt 1 ] || fail "$1 needs a value; see --help"
        if [ "$1" = --from ]; then from=$2; else root=$2; fi
        shift
        ;;
    --from=*) from=${1#*=} ;;
    --root=*) root=${1#*=} ;;
    --list) list=yes ;;
    --account) only_account=yes from=1000000 ;;
    --help)
        while IFS= read -r line; do
            case $line in
            '#!'*) ;;
            '#'*)
                line=${line#?}
                printf '%s\\n' "${line# }"
                ;;
            *) exit 0 ;;
            esac
        done <"$0"
        ;;
    *) fail "no such option: $1; see --help" ;;
    esac
    shift
done
case $from in '' | *[!0-9]*) fail "--from takes the number of a step; see --list" ;; esac
if [ -n "$root" ]; then
    root=$(cd -- "$root" && pwd -P)
    root=${root%/}
fi
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(cd -- "$here/" && pwd -P)\
"""

_END = """\
ended() {
    status=$?
    if [ "$status" -ne 0 ] && [ -n "$number" ]; then
        printf '%s: step %s failed with exit status %s: %s\\n' "$place" "$number" "$status" "$text" >&2
        printf 'provision.sh: when that is mended, go on from there with --from %s\\n' "$number" >&2
    fi
}
trap ended EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM\
"""


def provision(
    stage: Stage,
    recipe: Recipe,
    *,
    copies: Mapping[int, Sequence[Brought]] | None = None,
    binds: Mapping[tuple[int, int], str] | None = None,
    top: str = "",
) -> str:
    """The script for one stage: text with surrogate escapes where the Dockerfile has bytes that are no UTF-8.

    `copies`: what each COPY from the build context brings, by its number; without, the directory files/N. `binds`:
    where below files/ a RUN finds what it mounts from the context, by its number and the mount's, from 1; without, at
    files/N.M. `top` leads from the directory of the script
    to the one with stages/, cache/ and secrets/ ("/../.." or "").
    """
    state = _first_state(stage)
    runs = any(isinstance(step, Run) for step in stage.steps)
    blocks = Blocks(recipe, copies or {}, binds or {}, state, runs)
    bodies = [blocks.block(step) for step in stage.steps]
    user, group = account(state.user)
    library = functions({*blocks.called, "account"}, network=blocks.network)
    setting = [f"user={data(user)} group={data(group)}"]
    if runs or "directory" in blocks.called:
        setting.append(f"dir={data(state.working_directory)}")
    if blocks.network:
        setting.append("network=''")
    parts = [
        "#!/bin/sh",
        _header(stage, recipe, top),
        "",
        "set -eu",
        "umask 022",
        "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL=C",
        "export PATH LC_ALL",
        "unset CDPATH",
        "",
        library,
        _OPTIONS,
        " ".join(
            f"{variable}=$here{place}"
            for variable, place in (("top", top), ("files", "/files"), ("stages", f"{top}/stages"))
            if f"${variable}" in library or any(f"${variable}" in body for body in bodies)
        ),
        f"steps={len(stage.steps)}",
        "",
        _END,
        "",
        f"# {_from(stage)}",
        *setting,
        *([initial_environment("env_none", State())] if blocks.from_none else []),
        *([initial_environment("env_0", state)] if runs else []),
        "",
        "\n\n".join(bodies),
        "",
        'if [ -n "$only_account" ]; then',
        '    account "$user" "$group"',
        '    printf \'%s\\n\' "$uid" "$gid" "$groups" "$home"',
        "fi",
    ]
    return "\n".join(parts) + "\n"


def _first_state(stage: Stage) -> State:
    """What the base has set before the first step."""
    config = stage.base_config
    env = {}
    for word in config.env:
        name, equals, value = word.partition("=")
        if equals:
            env[name] = value
    directory = "/" + config.working_dir.lstrip("/") if config.working_dir else "/"
    return State(tuple(env.items()), (), config.user, directory, config.shell or ("/bin/sh", "-c"))


def _header(stage: Stage, recipe: Recipe, top: str) -> str:
    name = f", stage {one_line(stage.label)}" if len(recipe.stages) > 1 else ""
    made = (
        f"Made by docker2nspawn from {one_line(recipe.file)}{name}: {_from(stage)}, {len(stage.steps)} steps."
    )
    place = "stages/STAGE/" if top else ""
    return "\n".join([comment(made, "# "), "#", _USAGE.format(place=place)])


def _from(stage: Stage) -> str:
    match stage.base:
        case None:
            return "FROM scratch"
        case ImageSource(name):
            return f"FROM {one_line(name)}"
        case StageSource():
            return one_line(stage.instruction.text)
