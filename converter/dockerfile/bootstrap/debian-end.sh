
# What belongs to this run.
find "$partial/var/lib/apt/lists" "$partial/var/cache/apt" -type f -delete
for file in etc/machine-id var/log/dpkg.log var/log/bootstrap.log var/log/alternatives.log var/log/apt/history.log \
    var/log/apt/term.log var/log/apt/eipp.log.xz var/cache/ldconfig/aux-cache; do
    rm -f "$partial/$file"
done
put /etc/hostname 0644 </dev/null
put /etc/resolv.conf 0644 </dev/null
