
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
