
fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || fail "$1 is missing; install the package $2"
}

# In a mount namespace of its own, so that nothing that COMMAND mounts outlives it.
apart() { # COMMAND...
    unshare --mount -- "$@"
}

# A program of the new tree, run in it.
inside() { # COMMAND...
    # shellcheck disable=SC2016 # the inner shell expands these
    apart sh -c 'root=$1; shift; mount -t proc proc "$root/proc" && exec chroot "$root" "$@"' sh "$partial" \
        /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# Write standard input to a file of the new tree; never through a link.
put() { # PATH MODE
    mkdir -p "$partial${1%/*}"
    rm -f "$partial$1"
    cat >"$partial$1"
    chmod "$2" "$partial$1"
}

[ $# -eq 1 ] || fail 'say where to: bootstrap.sh DIRECTORY'
[ "$(id -u)" -eq 0 ] || fail 'only root can make a system'
case $1 in
/*) target=${1%/} ;;
*) target=$PWD/${1%/} ;;
esac
if [ -d "$target" ] && [ ! -L "$target" ]; then
    [ -z "$(ls -A "$target")" ] || fail "$target is not empty"
elif [ -e "$target" ] || [ -L "$target" ]; then
    fail "$target is in the way"
fi

# It is made beside its place and moved there when it is complete. What fails leaves nothing.
partial=$(mktemp -d "$target.partial-XXXXXX")
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$partial" "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$partial"
