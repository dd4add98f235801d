
need unshare util-linux
need zypper zypper
printf '%%_dbpath /usr/lib/sysimage/rpm\n' >"$work/.rpmmacros"
export HOME="$work"
run_zypper() {
    ZYPP_CONF="$work/zypp.conf" apart zypper --root "$partial" --non-interactive --gpg-auto-import-keys "$@"
}
cat >"$work/zypp.conf" <<EOF_
[main]
arch = $arch
rpm.install.excludedocs = yes
solver.onlyRequires = true
EOF_
repositories | while read -r name url; do
    run_zypper addrepo --refresh "$url" "$name"
done
run_zypper refresh
run_zypper install --no-recommends --auto-agree-with-licenses $packages

# As in the official image: what is needed and no more, without documentation.
if [ -f "$partial/etc/zypp/zypp.conf" ]; then
    sed -i -e 's/^#* *solver.onlyRequires *=.*/solver.onlyRequires = true/' \
        -e 's/^#* *rpm.install.excludedocs *=.*/rpm.install.excludedocs = yes/' "$partial/etc/zypp/zypp.conf"
else
    sed '/^arch/d' "$work/zypp.conf" | put /etc/zypp/zypp.conf.d/container.conf 0644
fi

# What belongs to this run.
run_zypper clean --all
rm -rf "$partial"/var/log/zypp "$partial"/var/log/zypper.log
: >"$partial/etc/machine-id"
: >"$partial/etc/hostname"
: >"$partial/etc/resolv.conf"
