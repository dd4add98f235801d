
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
