
need unshare util-linux
apk=$(command -v apk || command -v apk.static) ||
    fail "apk is missing; on another distribution take apk.static out of $mirror/$release/main/$arch/apk-tools-static-*.apk"

# Alpine's keys: an Alpine has them, another host fetches the package that holds them from Alpine over TLS.
keys=/etc/apk/keys
if [ -z "$(ls -A "$keys" 2>/dev/null)" ]; then
    case $mirror in
    https://*) ;;
    *) fail "without Alpine's keys in /etc/apk/keys only a MIRROR with https can be trusted" ;;
    esac
    apart "$apk" --root "$work/keys" --initdb --arch "$arch" --allow-untrusted --no-scripts \
        --repository "$mirror/$release/main" --update-cache add alpine-keys
    keys=$work/keys/usr/share/apk/keys
    [ ! -d "$keys/$arch" ] || keys=$keys/$arch
fi

mkdir -p "$partial/etc/apk/keys"
cp -L "$keys"/* "$partial/etc/apk/keys"
printf 'https://dl-cdn.alpinelinux.org/alpine/%s/%s\n' "$release" main "$release" community |
    put /etc/apk/repositories 0644
apart "$apk" --root "$partial" --initdb --arch "$arch" --keys-dir "$partial/etc/apk/keys" \
    --repositories-file /dev/null --repository "$mirror/$release/main" --no-cache add $packages

put /etc/hostname 0644 </dev/null
put /etc/resolv.conf 0644 </dev/null
rm -rf "$partial"/var/cache/apk/*
