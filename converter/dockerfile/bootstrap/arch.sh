
need unshare util-linux
need pacstrap arch-install-scripts
need pacman-key pacman
[ -d /usr/share/pacman/keyrings ] || fail "Arch's keys are missing; install the package archlinux-keyring"

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
