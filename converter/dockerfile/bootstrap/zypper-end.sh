
# What belongs to this run.
run_zypper clean --all
rm -rf "$partial"/var/log/zypp "$partial"/var/log/zypper.log
put /etc/machine-id 0644 </dev/null
put /etc/hostname 0644 </dev/null
put /etc/resolv.conf 0644 </dev/null
