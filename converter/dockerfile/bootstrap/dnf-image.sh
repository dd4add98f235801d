
# As in the official image: one language.
printf '%%_install_langs C.utf8\n' | put /etc/rpm/macros.image-language-conf 0644
printf 'LANG="C.UTF-8"\n' | put /etc/locale.conf 0644
printf 'container\n' | put /etc/dnf/vars/infra 0644
