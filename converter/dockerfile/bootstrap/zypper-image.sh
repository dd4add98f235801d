
# As in the official image: what is needed and no more, without documentation.
if [ -f "$partial/etc/zypp/zypp.conf" ]; then
    sed -i -e 's/^#* *solver.onlyRequires *=.*/solver.onlyRequires = true/' \
        -e 's/^#* *rpm.install.excludedocs *=.*/rpm.install.excludedocs = yes/' "$partial/etc/zypp/zypp.conf"
else
    printf '[main]\nrpm.install.excludedocs = yes\nsolver.onlyRequires = true\n' |
        put /etc/zypp/zypp.conf.d/container.conf 0644
fi
