# What provision.sh may call; shell.py picks what one script needs. No function has an empty line in it.

# fail MESSAGE: ends the script; the trap below says where.
fail() {
    printf 'provision.sh: %s\n' "$*" >&2
    exit 1
}

# step N PLACE TEXT: says which step comes now; false when it is to be left out.
step() {
    number=$1 place=$2 text=$3
    if [ -n "$list" ]; then
        printf '%4s  %s  %s\n' "$1" "$2" "$3"
        return 1
    fi
    [ "$1" -ge "$from" ] || return 1
    printf '[%s/%s] %s %s\n' "$1" "$steps" "$2" "$3" >&2
}

# within ROOT PATH: sets $at to where PATH lies in the tree at ROOT; links are followed inside that tree only.
within() {
    at=$1 rest=$2/ links=0
    while [ -n "$rest" ]; do
        part=${rest%%/*} rest=${rest#*/}
        case $part in
        '' | .) ;;
        ..) [ "$at" = "$1" ] || at=${at%/*} ;;
        *)
            if [ -L "$at/$part" ]; then
                links=$((links + 1))
                [ "$links" -le 255 ] || fail "too many symbolic links on the way to $2"
                target=$(readlink "$at/$part" && echo .)
                target=${target%??}
                case $target in /*) at=$1 ;; esac
                rest=$target/$rest
            else
                at=$at/$part
            fi
            ;;
        esac
    done
}

# find_line FILE N KEY: sets $line to the first line of /etc/FILE with KEY as its field N (1 or 3); false without one.
find_line() {
    within "$root" "/etc/$1"
    [ -f "$at" ] || return 1
    while read -r line || [ -n "$line" ]; do
        field=$line
        [ "$2" = 1 ] || field=${line#*:*:}
        [ "${field%%:*}" != "$3" ] || return 0
    done <"$at"
    return 1
}

# account USER GROUP: sets $uid, $gid, $groups and $home as Docker finds them in /etc/passwd and /etc/group.
account() {
    uid=${1:-0} gid=0 groups='' home=/ name=''
    key=3
    case $uid in *[!0-9]*) key=1 ;; esac
    if find_line passwd "$key" "$uid"; then
        IFS=: read -r name _ uid gid _ home _ <<LINE
$line
LINE
    elif [ "$key" = 1 ]; then
        fail "USER $1 is not in /etc/passwd"
    fi
    case $2 in
    '')
        within "$root" /etc/group
        if [ -n "$name" ] && [ -f "$at" ]; then
            while IFS=: read -r _ _ number_of members || [ -n "$members" ]; do
                case ,$members, in *,"$name",*) groups=$groups,${number_of:-0} ;; esac
            done <"$at"
        fi
        ;;
    *[!0-9]*)
        find_line group 1 "$2" || fail "the group $2 of USER is not in /etc/group"
        IFS=: read -r _ _ gid _ <<LINE
$line
LINE
        ;;
    *) gid=$2 ;;
    esac
    uid=${uid:-0} gid=${gid:-0} groups=${gid:-0}$groups home=${home:-/}
}

# own USER GROUP: sets $owner to UID:GID for --chown; 0 for a name that /etc has not, as in BuildKit.
own() {
    uid=0 gid=0
    case $1 in
    *[!0-9]*)
        if find_line passwd 1 "$1"; then
            IFS=: read -r _ _ uid gid _ <<LINE
$line
LINE
        fi
        ;;
    ?*) uid=$1 gid=$1 ;;
    esac
    case $2 in
    *[!0-9]*)
        if find_line group 1 "$2"; then
            IFS=: read -r _ _ gid _ <<LINE
$line
LINE
        fi
        ;;
    ?*) gid=$2 ;;
    esac
    owner=${uid:-0}:${gid:-0}
}

# become COMMAND…: COMMAND as $uid with $gid and $groups, which are what `account` has found.
# Directly when we are that already, else by what there is: setpriv, chroot of coreutils, su of busybox.
become() {
    if [ -n "$root" ]; then
        chroot --userspec=0:0 / true 2>/dev/null || fail '--root needs root, and chroot of coreutils'
        if [ "$dir" = / ]; then # then nothing is needed in the tree but the program: chroot between env and it
            rest=$(($# - words))
            while [ "$rest" -gt 0 ]; do
                set -- "$@" "$1"
                shift
                rest=$((rest - 1))
            done
            set -- "$@" "$(command -v chroot)" --userspec="$uid:$gid" --groups="$groups" "$root"
            while [ "$rest" -lt "$words" ]; do
                set -- "$@" "$1"
                shift
                rest=$((rest + 1))
            done
        else
            set -- /bin/sh -c 'cd -- "$1" && shift && exec "$@"' sh "$dir" "$@"
            set -- chroot --userspec="$uid:$gid" --groups="$groups" "$root" "$@"
        fi
    elif [ "$(id -u):$(id -g):$(id -G)" = "$uid:$gid:$(echo "$groups" | tr , ' ')" ]; then
        : # as we are
    elif setpriv --reuid="$uid" --regid="$gid" --groups="$groups" true 2>/dev/null; then
        set -- setpriv --reuid="$uid" --regid="$gid" --groups="$groups" "$@"
    elif chroot --userspec="$uid:$gid" --groups="$groups" --skip-chdir / true 2>/dev/null; then
        set -- chroot --userspec="$uid:$gid" --groups="$groups" --skip-chdir / "$@"
    elif [ -z "$group" ] && [ -n "$name" ] && su -s /bin/sh -c true -- "$name" 2>/dev/null; then
        set -- su -s /bin/sh -c 'exec "$@"' -- "$name" sh "$@"
    elif [ "$uid:$gid" != "$(id -u):$(id -g)" ]; then
        fail "nothing here can become uid $uid, gid $gid: install setpriv (util-linux) in an earlier RUN, or use --root"
    fi
    if [ "$network" = none ]; then #[network]
        unshare -n true || fail 'RUN --network=none needs unshare (util-linux), and the right to use it' #[network]
        set -- unshare -n "$@" #[network]
    fi #[network]
    "$@"
}

# run ENV COMMAND…: COMMAND as a RUN: in the environment of the function ENV, as $user and $group, in $dir.
run() {
    account "$user" "$group"
    within "$root" "$dir"
    [ -d "${at:-/}" ] || mkdir -p -- "$at"
    words=$(($# - 1))
    (cd -- "${at:-/}" && "$@") </dev/null
}

# directory PATH OWNER: makes the directory PATH with all that is missing above it, and sets $at to where it lies.
directory() {
    within "$root" "$1"
    [ ! -d "${at:-/}" ] || return 0
    first=$at above=${at%/*}
    while [ ! -d "${above:-/}" ]; do
        first=$above above=${above%/*}
    done
    mkdir -p -- "$at"
    chown -R -h "$2" "$first"
}

# copy OWNER MODE DESTINATION SOURCE…: each SOURCE as COPY does: of a directory what it holds, of anything else itself.
# OWNER '' keeps owners, MODE '' modes. What was in a file's place is replaced, not written through.
copy() {
    owner=$1 mode=$2 to=$3
    shift 3
    for source; do
        put "$source" "${source##*/}"
    done
}

# copy_from ROOT OWNER MODE DESTINATION PATH…: the same for paths of another tree, whose links lead inside it.
copy_from() {
    tree=$1 owner=$2 mode=$3 to=$4
    shift 4
    for path; do
        within "$tree" "$path"
        [ -e "${at:-/}" ] || [ -L "$at" ] || fail "$path is not there to copy"
        path=${path%/}
        put "${at:-/}" "${path##*/}"
    done
}

# look_in ROOT DIRECTORY: sets $at to where it lies.
look_in() {
    within "$1" "$2"
    [ -e "${at:-/}" ] || fail "$2 is not there to copy from"
}

# copy_matches ROOT OWNER MODE DESTINATION FOUND…: the same for what a wildcard has found: full paths, if it has.
copy_matches() {
    tree=$1 owner=$2 mode=$3 to=$4
    shift 4
    for match; do
        is_there "$match" || continue
        copy_from "$tree" "$owner" "$mode" "$to" "${match#"$tree"}"
    done
}

# is_there PATH: is PATH, which a wildcard has left, anything to copy?
is_there() {
    case ${1##*/} in . | ..) return 1 ;; esac
    [ -e "$1" ] || [ -L "$1" ]
}

# copy_but ROOT OWNER MODE DESTINATION PATH REGEX…: as copy_from, but of a directory nothing that a REGEX matches.
copy_but() {
    within "$1" "$5"
    if [ -d "${at:-/}" ]; then
        new=$(mktemp -d "$root/.copied-XXXXXX")
        cp -a "$at/." "$new"
        to=$4 owner=$2 mode=$3
        shift 5
        leave_out "$@"
        put "$new" ''
        rm -rf "$new"
    else
        copy_from "$1" "$2" "$3" "$4" "$5"
    fi
}

# take_only REGEX: makes the directory $new, with what REGEX matches in $at, and the directories on the way to it.
take_only() {
    new=$(mktemp -d "$root/.copied-XXXXXX")
    (cd "${at:-/}" && find . -regex "$1" -prune -exec sh -c '
        for path; do
            rest=${path#./} above=.
            while [ "$rest" != "${rest#*/}" ]; do
                above=$above/${rest%%/*} rest=${rest#*/}
                [ ! -d "$0/$above" ] || continue
                mkdir "$0/$above"
                chown "$(stat -c %u:%g "$above")" "$0/$above"
                chmod "$(stat -c %a "$above")" "$0/$above"
            done
            cp -a "$path" "$0/$above/"
        done
    ' "$new" '{}' +)
}

# leave_out REGEX…: removes from the directory $new what a REGEX matches.
leave_out() {
    for regex; do
        (cd "$new" && find . ! -path . -regex "$regex" -prune -exec rm -rf '{}' +)
    done
}

# unpack DESTINATION OPTION ARCHIVE: what ADD does with a tar: into the directory DESTINATION, with the owners in it.
unpack() {
    directory "$1" 0:0
    at=${at:-/}
    new=$(mktemp -d "${at%/}/.unpacked-XXXXXX") # tar would follow links that are in the tree
    if tar --help 2>/dev/null | grep -q -e --xattrs-include; then
        tar -p --numeric-owner --xattrs --xattrs-include='*' -C "$new" "$2" "$3"
    else
        tar -p --numeric-owner -C "$new" "$2" "$3"
    fi
    fill "$at" "$new"
    rm -rf "$new"
}

# put SOURCE NAME: one SOURCE of `copy`, to $to; NAME is how it is called there when $to is a directory.
put() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then
        directory "$to" "${owner:-0:0}"
        at=${at:-/}
        fill "$at" "$1"
        [ -z "$owner" ] || below "$1" "$at" chown -h "$owner"
        [ -z "$mode" ] || below "$1" "$at" chmod "$mode"
    else
        case $to in
        */ | */. | */..) directory "$to" "${owner:-0:0}" ;;
        *)
            directory "${to%/*}/" "${owner:-0:0}"
            within "$root" "$to"
            ;;
        esac
        [ ! -d "${at:-/}" ] || at=$at/$2
        [ -d "${at%/*}/" ] || mkdir -p "${at%/*}" # where a link led to what is not there
        uncover "$at"
        [ ! -d "$at" ] || [ -L "$at" ] || fail "a directory is in the place of the file $at"
        cp -af --remove-destination "$1" "$at"
        if [ -n "$owner" ]; then
            chown -h "$owner" "$at"
            [ -L "$at" ] || chmod "$(stat -c %a "$1")" "$at" # chown has taken away setuid
        fi
        [ -z "$mode" ] || [ -L "$at" ] || chmod "$mode" "$at"
    fi
}

# fill DIRECTORY SOURCE: all that the directory SOURCE holds into DIRECTORY, which itself stays as it is.
fill() {
    was=$(stat -c '%u:%g %a' "$1")
    into=$1 whole=$2
    for file in hosts resolv.conf; do
        [ ! -e "$whole/$file" ] || uncover "$into/$file"
        [ ! -e "$whole/etc/$file" ] || uncover "$into/etc/$file"
    done
    if is_own "$into" dev && is_own "$into" proc && is_own "$into" sys; then
        cp -af --remove-destination "$whole/." "$into"
    else
        set --
        for entry in "$whole"/* "$whole"/.[!.]* "$whole"/..?*; do
            is_there "$entry" && is_own "$into" "${entry##*/}" && set -- "$@" "$entry"
        done
        [ $# -eq 0 ] || cp -af --remove-destination "$@" "$into/"
    fi
    chown "${was% *}" "$into"
    chmod "00${was#* }" "$into" # without the zeros a set-group-ID bit would stay
}

# is_own DIRECTORY NAME: is NAME in it no directory on which something is mounted while this script runs?
is_own() {
    [ ! -d "$1/$2" ] || [ -L "$1/$2" ] || [ "$(stat -c %d "$1/$2")" = "$(stat -c %d "$1")" ]
}

# uncover PATH: the file itself is to be written, so nothing is mounted on it any longer.
uncover() {
    case $1 in
    */etc/hosts | */etc/resolv.conf) [ ! -f "$1" ] || umount "$1" 2>/dev/null || : ;;
    esac
}

# below SOURCE COPY chown|chmod …: does that to all in COPY that came from SOURCE, and gives back setuid.
below() {
    source_of=$1 copy_of=$2
    shift 2
    (
        cd "$source_of"
        if [ "$1" = chown ]; then find . ! -path . -print0; else find . ! -path . ! -type l -print0; fi
    ) | (cd "$copy_of" && xargs -0 -r "$@")
    [ "$1" = chmod ] || (
        cd "$source_of"
        find . -type f '(' -perm -4000 -o -perm -2000 ')' \
            -exec sh -c 'for path; do chmod "$(stat -c %a "$path")" "$0/$path"; done' "$copy_of" '{}' +
    )
}

# hold TARGET KIND: makes the mount point TARGET, a dir or a file; when this subshell ends it is free and gone again.
hold() {
    within "$root" "$1"
    point=$at made=''
    if [ ! -e "$point" ]; then
        made=$point
        while [ ! -d "${made%/*}/" ]; do
            made=${made%/*}
        done
        mkdir -p -- "${point%/*}/"
        if [ "$2" = dir ]; then mkdir -- "$point"; else : >"$point"; fi
    fi
    trap release EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# release: what `hold` has promised; mount points that something was put into stay.
release() {
    umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null || :
    while [ -n "$made" ] && [ "${#point}" -ge "${#made}" ]; do
        if [ -d "$point" ]; then
            rmdir "$point" 2>/dev/null || break
        elif [ ! -s "$point" ]; then
            rm -f "$point"
        fi
        point=${point%/*}
    done
}

# with_bind ROOT PATH TARGET ACCESS COMMAND…: COMMAND with PATH of the tree ROOT at TARGET; with rw a copy of it.
with_bind() (
    within "$1" "$2"
    from=${at:-/}
    [ -e "$from" ] || fail "$2 is not there to mount"
    if [ ! -d "$from" ]; then
        hold "$3" file
        if [ "$4" = rw ]; then
            kept=$(mktemp)
            cp -a "$from" "$kept"
            mount -o bind "$kept" "$point"
            rm "$kept"
        else
            mount -o bind "$from" "$point"
            mount -o remount,bind,ro "$point"
        fi
    else
        hold "$3" dir
        if [ "$4" = rw ]; then
            mount -t tmpfs -o mode=755 tmpfs "$point"
            cp -a "$from/." "$point"
        else
            mount -o bind "$from" "$point"
            mount -o remount,bind,ro "$point"
        fi
    fi
    shift 4
    "$@"
)

# with_cache NAME TARGET OWNER MODE ACCESS COMMAND…: COMMAND with the directory cache/NAME beside this script at TARGET.
with_cache() (
    hold "$2" dir
    if [ ! -d "$top/cache/$1" ]; then
        mkdir -p "$top/cache/$1" || fail "RUN --mount=type=cache needs $top/cache, writable"
        chown "$3" "$top/cache/$1"
        chmod "$4" "$top/cache/$1"
    fi
    mount -o bind "$top/cache/$1" "$point"
    [ "$5" = rw ] || mount -o remount,bind,ro "$point"
    shift 5
    "$@"
)

# fill_cache NAME ROOT PATH: what a cache holds when it is new.
fill_cache() {
    [ ! -d "$top/cache/$1" ] || return 0
    within "$2" "$3"
    mkdir -p "$top/cache" || fail "RUN --mount=type=cache needs $top/cache, writable"
    cp -a "${at:-/}" "$top/cache/$1"
}

# with_tmpfs TARGET OPTIONS COMMAND…: COMMAND with an empty tmpfs at TARGET.
with_tmpfs() (
    hold "$1" dir
    mount -t tmpfs -o "$2" tmpfs "$point"
    shift 2
    "$@"
)

# with_secret NAME TARGET OWNER MODE NEED COMMAND…: COMMAND with a copy of the file secrets/NAME beside this script.
with_secret() (
    if [ ! -f "$top/secrets/$1" ]; then
        [ "$5" = optional ] || fail "this RUN needs a secret: put it into $top/secrets/$1"
        shift 5
        "$@"
        return
    fi
    hold "$2" file
    kept=$(mktemp -d)
    mount -t tmpfs -o mode=700 tmpfs "$kept"
    cp "$top/secrets/$1" "$kept/secret"
    chown "$3" "$kept/secret"
    chmod "$4" "$kept/secret"
    mount -o bind "$kept/secret" "$point"
    mount -o remount,bind,ro "$point"
    umount -l "$kept"
    rmdir "$kept"
    shift 5
    "$@"
)

# secret NAME NEED: sets $secret to what the file secrets/NAME beside this script holds.
secret() {
    unset secret
    if [ -f "$top/secrets/$1" ]; then
        secret=$(cat "$top/secrets/$1" && printf .)
        secret=${secret%.}
    elif [ "$2" = required ]; then
        fail "this RUN needs a secret: put it into $top/secrets/$1"
    fi
}

# with_ssh TARGET NEED COMMAND…: COMMAND with the socket of the ssh agent ($SSH_AUTH_SOCK) at TARGET.
with_ssh() (
    if [ ! -S "${SSH_AUTH_SOCK:-}" ]; then
        [ "$2" = optional ] || fail 'this RUN needs an ssh agent: SSH_AUTH_SOCK names no socket'
    else
        hold "$1" file
        mount -o bind "$SSH_AUTH_SOCK" "$point"
    fi
    shift 2
    "$@"
)

# with_script PATH TEXT COMMAND…: COMMAND with a program of that TEXT at PATH.
with_script() (
    hold "${1%/*}" dir
    mount -t tmpfs -o mode=755 tmpfs "$point" 2>/dev/null || :
    script=$point/${1##*/}
    trap 'rm -f "$script"; release' EXIT
    printf '%s' "$2" >"$script"
    chmod 755 "$script"
    shift 2
    "$@"
)
