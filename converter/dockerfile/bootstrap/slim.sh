
# -slim: no documentation and no translations, now and in packages to come.
put /etc/dpkg/dpkg.cfg.d/docker 0644 <<'EOF_'
# This is the "slim" variant of the Debian base image.
path-exclude /usr/share/doc/*
path-exclude /usr/share/doc/kde/HTML/*/*
path-exclude /usr/share/gnome/help/*/*
path-exclude /usr/share/info/*
path-exclude /usr/share/linda/*
path-exclude /usr/share/lintian/overrides/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
path-exclude /usr/share/omf/*/*-*.emf
path-include /usr/share/doc/*/copyright
path-include /usr/share/doc/kde/HTML/C/*
path-include /usr/share/gnome/help/*/C/*
path-include /usr/share/locale/all_languages
path-include /usr/share/locale/currency/*
path-include /usr/share/locale/l10n/*
path-include /usr/share/locale/languages
path-include /usr/share/locale/locale.alias
path-include /usr/share/omf/*/*-C.emf
EOF_
inside sh -eu <<'EOF_'
set -- /usr/share/man/man[0-9]
for directory in doc info linda lintian/overrides locale man; do
    [ -d "/usr/share/$directory" ] || continue
    find "/usr/share/$directory" -mindepth 1 ! -type d ! -type l \
        ! -path '/usr/share/doc/*/copyright' \
        ! -path '/usr/share/locale/all_languages' ! -path '/usr/share/locale/currency/*' \
        ! -path '/usr/share/locale/l10n/*' ! -path '/usr/share/locale/languages' \
        ! -path '/usr/share/locale/locale.alias' -delete
    # What has become empty or leads nowhere goes too, until nothing of the kind is left.
    while [ -n "$(find "/usr/share/$directory" -depth -mindepth 1 \( -empty -o -xtype l \) -print -exec rm -rf {} \;)" ]; do
        :
    done
done
# Some packages' scripts want these directories.
mkdir -p "$@"
EOF_
