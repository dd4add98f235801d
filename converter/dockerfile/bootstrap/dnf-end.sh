
# What belongs to this run.
rm -rf "$partial"/var/cache/dnf "$partial"/var/cache/libdnf5 "$partial"/var/log/dnf* "$partial"/var/log/hawkey.log \
    "$partial"/var/lib/dnf/repos "$partial"/var/lib/dnf/history*
put /etc/machine-id 0644 </dev/null
put /etc/hostname 0644 </dev/null
put /etc/resolv.conf 0644 </dev/null
