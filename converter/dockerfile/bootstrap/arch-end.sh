
# What belongs to this run; the keys of pacman are this host's own, and the tree makes its own at need.
rm -rf "$partial"/etc/pacman.d/gnupg/openpgp-revocs.d/* "$partial"/etc/pacman.d/gnupg/private-keys-v1.d/* \
    "$partial/etc/pacman.d/gnupg/pubring.gpg~" "$partial"/etc/pacman.d/gnupg/S.* \
    "$partial"/var/cache/pacman/pkg/* "$partial"/var/lib/pacman/sync/* "$partial/var/log/pacman.log" \
    "$partial/etc/machine-id"
put /etc/hostname 0644 </dev/null
put /etc/resolv.conf 0644 </dev/null
