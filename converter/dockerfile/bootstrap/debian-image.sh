
# All of these packages are needed by each other: none counts as asked for.
inside apt-mark auto '.*' >/dev/null

# As in the official image: no service starts when its package is installed,
put /usr/sbin/policy-rc.d 0755 <<'EOF_'
#!/bin/sh
exit 101
EOF_
# dpkg does not wait for the disk,
put /etc/dpkg/dpkg.cfg.d/docker-apt-speedup 0644 <<'EOF_'
force-unsafe-io
EOF_
# autoremove takes what is only suggested, too,
put /etc/apt/apt.conf.d/docker-autoremove-suggests 0644 <<'EOF_'
Apt::AutoRemove::SuggestsImportant "false";
EOF_
# apt keeps no packages and no caches,
put /etc/apt/apt.conf.d/docker-clean 0644 <<'EOF_'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
EOF_
# its lists stay compressed,
put /etc/apt/apt.conf.d/docker-gzip-indexes 0644 <<'EOF_'
Acquire::GzipIndexes "true";
EOF_
# and it fetches no translations.
put /etc/apt/apt.conf.d/docker-no-languages 0644 <<'EOF_'
Acquire::Languages "none";
EOF_
[ -e "$partial/etc/fstab" ] || put /etc/fstab 0644 <<'EOF_'
# UNCONFIGURED FSTAB FOR BASE SYSTEM
EOF_
