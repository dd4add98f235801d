
# What belongs to this run.
rm -rf "$partial"/var/cache/dnf "$partial"/var/cache/libdnf5 "$partial"/var/log/dnf* "$partial"/var/log/hawkey.log \
    "$partial"/var/lib/dnf/repos "$partial"/var/lib/dnf/history*
: >"$partial/etc/machine-id"
: >"$partial/etc/hostname"
: >"$partial/etc/resolv.conf"
