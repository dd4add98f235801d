
# What belongs to this run.
run_zypper clean --all
rm -rf "$partial"/var/log/zypp "$partial"/var/log/zypper.log
: >"$partial/etc/machine-id"
: >"$partial/etc/hostname"
: >"$partial/etc/resolv.conf"
