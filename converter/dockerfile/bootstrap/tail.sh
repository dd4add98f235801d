
[ ! -d "$target" ] || rmdir "$target"
mv "$partial" "$target"
