
need unshare util-linux
for file in $keyrings; do
    [ ! -s "/usr/share/keyrings/$file" ] || cat "/usr/share/keyrings/$file" >>"$work/keyring.gpg"
done
[ -s "$work/keyring.gpg" ] || fail "the distribution's keys are missing; install the package $keyring_package"

# The packages that every system has, and apt; with all updates.
if command -v mmdebstrap >/dev/null; then
    set -- --variant=minbase --architectures="$arch" --keyring="$work/keyring.gpg"
    [ -z "$aptopt" ] || set -- "$@" --aptopt="$aptopt"
    [ -z "$hook" ] || set -- "$@" --hook-dir="$hook"
    sources | apart mmdebstrap "$@" "$suite" "$partial" -
    rm -f "$partial/etc/apt/apt.conf.d/99mmdebstrap"
else
    need debootstrap 'mmdebstrap or debootstrap'
    script=/usr/share/debootstrap/scripts/$suite
    [ -e "$script" ] || script=$other_script
    apart debootstrap --variant=minbase --arch="$arch" --keyring="$work/keyring.gpg" --force-check-gpg "$merged" \
        "$suite" "$partial" "$mirror" "$script"
    cp "$work/keyring.gpg" "$partial/tmp/keyring.gpg"
    sources >"$partial/tmp/sources.list"
    put /etc/resolv.conf 0644 </etc/resolv.conf
    set -- -qq -o Dir::Etc::Trusted=/tmp/keyring.gpg -o Dir::Etc::SourceList=/tmp/sources.list \
        -o Dir::Etc::SourceParts=-
    [ -z "$aptopt" ] || set -- "$@" -o "$aptopt"
    inside apt-get "$@" update
    inside env DEBIAN_FRONTEND=noninteractive apt-get "$@" -y full-upgrade
    rm "$partial/tmp/keyring.gpg" "$partial/tmp/sources.list"
fi
