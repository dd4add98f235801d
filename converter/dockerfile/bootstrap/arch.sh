
need unshare util-linux
need pacstrap arch-install-scripts
need pacman-key pacman
[ -d /usr/share/pacman/keyrings ] || fail "Arch's keys are missing; install the package archlinux-keyring"

# What the image leaves out of its packages, now and of packages to come.
no_extract() {
    cat <<'EOF_'
NoExtract = usr/share/help/* !usr/share/help/en* !usr/share/help/C/*
NoExtract = usr/share/gtk-doc/html/* usr/share/doc/*
NoExtract = usr/share/locale/* usr/share/X11/locale/* usr/share/i18n/*
NoExtract = !*locale*/en*/* !usr/share/i18n/charmaps/UTF-8.gz !usr/share/*locale*/locale.*
NoExtract = !usr/share/*locales/en_?? !usr/share/*locales/i18n* !usr/share/*locales/iso*
NoExtract = !usr/share/*locales/trans*
NoExtract = !usr/share/X11/locale/C/*
NoExtract = !usr/share/X11/locale/compose.dir !usr/share/X11/locale/iso8859-1/*
NoExtract = !usr/share/*locales/C !usr/share/*locales/POSIX !usr/share/i18n/charmaps/ANSI_X3.4-1968.gz
NoExtract = usr/share/man/* usr/share/info/*
NoExtract = usr/share/vim/vim*/lang/*
EOF_
}

# Arch's keys and nobody else's; the host need not be an Arch.
cat >"$work/pacman.conf" <<EOF_
[options]
Architecture = $arch
GPGDir = $work/keys
CacheDir = $work/packages
SigLevel = Required DatabaseOptional
$(no_extract)

[core]
Server = $mirror/\$repo/os/\$arch

[extra]
Server = $mirror/\$repo/os/\$arch
EOF_
mkdir -m 700 "$work/keys"
pacman-key --gpgdir "$work/keys" --init
pacman-key --gpgdir "$work/keys" --populate archlinux
apart pacstrap -C "$work/pacman.conf" -G -M "$partial" $packages

# As in the official image.
no_extract >"$work/no-extract"
printf 'NoExtract = etc/pacman.conf etc/pacman.d/mirrorlist\n' >>"$work/no-extract"
sed -i "/^\[options\]/r $work/no-extract" "$partial/etc/pacman.conf"
if grep -q '^#DisableSandboxFilesystem' "$partial/etc/pacman.conf"; then
    sed -i 's/^#DisableSandboxFilesystem/DisableSandboxFilesystem/' "$partial/etc/pacman.conf"
else
    sed -i 's/^#DisableSandbox$/DisableSandbox/' "$partial/etc/pacman.conf"
fi
# shellcheck disable=SC2016 # pacman expands these
printf 'Server = https://%s.mirror.pkgbuild.com/$repo/os/$arch\n' fastly geo | put /etc/pacman.d/mirrorlist 0644
printf 'LANG=C.UTF-8\n' | put /etc/locale.conf 0644
inside pacman-key --init
inside pacman-key --populate
inside systemd-sysusers
sed -i 's/^root::/root:!:/' "$partial/etc/shadow"

# What belongs to this run; the keys of pacman are this host's own, and the tree makes its own at need.
rm -rf "$partial"/etc/pacman.d/gnupg/openpgp-revocs.d/* "$partial"/etc/pacman.d/gnupg/private-keys-v1.d/* \
    "$partial/etc/pacman.d/gnupg/pubring.gpg~" "$partial"/etc/pacman.d/gnupg/S.* \
    "$partial"/var/cache/pacman/pkg/* "$partial"/var/lib/pacman/sync/* "$partial/var/log/pacman.log" \
    "$partial/etc/machine-id"
: >"$partial/etc/hostname"
: >"$partial/etc/resolv.conf"
