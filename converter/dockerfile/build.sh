#!/bin/sh
@heading@
#
#     ./build.sh              as root: makes every stage by its bootstrap.sh and provision.sh, in the end root/
#     ./build.sh --install    the same, and puts the machine in place, ready for machinectl start
#
#     --from STEP        go on at that step of the stage that has failed, with its tree as it is
#     --stages           make the other stages and images only, for mkosi/ or for provision.sh by hand
#     --nspawn           run the steps in systemd-nspawn, not in a chroot with namespaces of its own; what they leave
#                        in /run is lost there, and they see this directory at /run/provision
#     --settings ROOT    put the account of USER, as the tree ROOT has it, into the settings: for a tree made otherwise
#     --destination DIR  install below DIR instead of /
#     --help             show this
#
# What is complete is kept: remove root/ (or stages/STAGE/root) to make it anew. MIRROR in the environment is where
# bootstrap.sh takes packages from; secrets/ is where RUN --mount=type=secret finds them, cache/ what it caches.

set -eu
umask 022
unset CDPATH
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

name=@name@

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '==> %s\n' "$*" >&2
}

@functions@

# tree DIRECTORY inside|outside: makes DIRECTORY/root, under another name until it is complete.
tree() {
    [ ! -d "$1/root" ] || return 0
    if [ -n "$from" ] && [ -d "$1/root.unfinished" ]; then
        start=$from
        from=''
    else
        start=1
        rm -rf --one-file-system "$1/root.unfinished"
        say "$1/bootstrap.sh"
        sh "$1/bootstrap.sh" "$1/root.unfinished"
    fi
    if [ -e "$1/provision.sh" ]; then
        say "$1/provision.sh"
        if [ -n "$nspawn" ] && [ "$2" = inside ]; then
            in_nspawn "$1" "$start"
        else
            unshare --mount --uts --ipc --pid --fork --kill-child sh "$here/build.sh" --apart "$1" "$start"
        fi || fail "when that is mended: build.sh --from STEP; without --from, this stage begins anew"
    fi
    [ "$1" != "$here" ] || finish "$1/root.unfinished"
    mv "$1/root.unfinished" "$1/root"
}

# in_nspawn DIRECTORY STEP: its provision.sh in systemd-nspawn.
in_nspawn() {
    case $here in *[:\\]*) fail "--nspawn cannot bind $here, for the colon or backslash in it" ;; esac
    mkdir -p "$here/cache"
    set -- systemd-nspawn --quiet --register=no --keep-unit --pipe --private-users=no --timezone=off \
        --link-journal=no --resolv-conf=bind-host --hostname=buildkitsandbox --directory="$1/root.unfinished" \
        --bind-ro="$here:/run/provision" --bind="$here/cache:/run/provision/cache" \
        /bin/sh "/run/provision${1#"$here"}/provision.sh" --from "$2"
    SYSTEMD_NSPAWN_TMPFS_TMP=0 "$@" </dev/null
}

# apart DIRECTORY STEP: its provision.sh, in namespaces of our own: what is mounted here is gone with them.
apart() {
    root=$1/root.unfinished
    for directory in dev proc sys etc; do
        [ ! -L "$root/$directory" ] || fail "/$directory of the tree is a link"
        mkdir -p "$root/$directory"
    done
    printf buildkitsandbox >/proc/sys/kernel/hostname
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    for device in full null random tty urandom zero; do
        : >"$root/dev/$device"
        mount -o bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
    for link in ptmx:pts/ptmx fd:/proc/self/fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
        ln -s "${link#*:}" "$root/dev/${link%%:*}"
    done
    printf '127.0.0.1 localhost buildkitsandbox\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/dev/.hosts"
    stubs=''
    for pair in hosts:"$root/dev/.hosts" resolv.conf:/etc/resolv.conf; do
        [ -e "${pair#*:}" ] || continue
        within "$root" "/etc/${pair%%:*}"
        if [ ! -e "$at" ]; then
            : >"$at"
            stubs="$stubs ${pair%%:*}"
        fi
        mount -o bind "${pair#*:}" "$at"
    done
    rm "$root/dev/.hosts"
    status=0
    sh "$1/provision.sh" --root "$root" --from "$2" || status=$?
    for stub in $stubs; do
        within "$root" "/etc/$stub"
        umount "$at" 2>/dev/null || : # a COPY may have been in need of the file itself
        [ -s "$at" ] || rm "$at"
    done
    exit "$status"
}

# What the machine needs in its tree, and docker run would provide. $tree is where it lies.
directory() {
    within "$tree" "$1"
    mkdir -p "${at:-/}"
}

parent() { # PATH: sets $at to the directory it is in, which is made
    directory "${1%/*}/"
    last=${1##*/}
}

file() { # PATH MODE CONTENT
    parent "$1"
    rm -rf "${at:?}/$last"
    cp "$3" "$at/$last"
    chmod "$2" "$at/$last"
    chown 0:0 "$at/$last"
}

link() { # PATH TARGET
    parent "$1"
    rm -rf "${at:?}/$last"
    ln -s "$2" "$at/$last"
}

mount_point() { # PATH
    parent "$1"
    if [ -L "$at/$last" ] || [ ! -d "$at/$last" ]; then
        rm -rf "${at:?}/$last"
        mkdir "$at/$last"
    fi
}

# finish ROOT: the rest of the work at the tree, and the settings for it.
finish() {
    tree=$1
@changes@
    settings "$1"
}

# settings ROOT: the account of USER, as it is there, into the files that need it.
settings() {
    found=$(sh "$here/provision.sh" --root "$1" --account) || fail "so docker run could not start it either"
    {
        read -r uid
        read -r gid
        read -r groups
        read -r home
    } <<FOUND
$found
FOUND
    case $home in
    *[!A-Za-z0-9_./+@-]*) fail "no settings can be written for a home directory $home" ;;
    esac
@account@
}

fill_in() { # FILE MODE
    sed -e "s/@gid@,@group@/$groups/g" -e "s/@uid@/$uid/g" -e "s/@gid@/$gid/g" \
        -e "s|@home@|$home|g" "$here/templates/$1" >"$here/$1.new"
    chmod "$2" "$here/$1.new"
    mv "$here/$1.new" "$here/$1"
}

# install_machine: what is here, to where machinectl looks for it; the tree last, under its name when it is complete.
install_machine() {
    machines=$destination/var/lib/machines
    [ ! -e "$machines/$name" ] || fail "there is a machine $name already: machinectl remove $name"
    if [ ! -d "$machines" ]; then
        mkdir -p "$machines"
        chmod 700 "$machines"
    fi
    partial="$machines/.#$name.docker2nspawn-$$"
    trap 'rm -rf "$partial"' EXIT
    cp -a --reflink=auto "$here/root" "$partial"
@installed@
    mv "$partial" "$machines/$name"
    trap - EXIT
    if [ -z "$destination" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    say "start it with: machinectl start $name"
}

put() { # FILE PATH MODE
    mkdir -p "$destination${2%/*}"
    cp "$1" "$destination$2.new"
    chmod "$3" "$destination$2.new"
    mv "$destination$2.new" "$destination$2"
}

trust() { # SETTINGS
    mkdir -p "$destination/etc/systemd/nspawn"
    ln -sfn "$1" "$destination/etc/systemd/nspawn/$name.nspawn"
}

case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
here=$(cd -- "$here/" && pwd -P)
from='' nspawn='' destination='' install='' only=''
while [ $# -gt 0 ]; do
    case $1 in
    --from | --settings | --destination)
        [ $# -gt 1 ] || fail "$1 needs a value; see --help"
        case $1 in
        --from) from=$2 ;;
        --settings) only=$2 ;;
        --destination) destination=${2%/} ;;
        esac
        shift
        ;;
    --install) install=yes ;;
    --nspawn) nspawn=yes ;;
    --stages) only=stages ;;
    --apart)
        apart "$2" "$3"
        ;;
    --help)
        while IFS= read -r line; do
            case $line in
            '#!'*) ;;
            '#'*)
                line=${line#?}
                printf '%s\n' "${line# }"
                ;;
            *) exit 0 ;;
            esac
        done <"$0"
        ;;
    *) fail "no such option: $1; see --help" ;;
    esac
    shift
done
case $from in *[!0-9]*) fail "--from takes the number of a step" ;; esac
case $only in
'' | stages)
    [ "$(id -u)" -eq 0 ] || fail "only root can make a system"
@stages@
    ;;
*)
    settings "$only"
    exit
    ;;
esac
[ "$only" != stages ] || exit 0
@target@
[ -z "$install" ] || install_machine
[ -n "$install" ] || say "$here/root is complete; build.sh --install puts the machine in place"
