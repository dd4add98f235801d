
# An image, taken from Docker where it has it, else from its registry.
need docker2nspawn docker2nspawn
docker2nspawn convert --name base --root "$work/made" --no-trust --platform "$platform" "$image"
rmdir "$partial"
mv "$work/made/var/lib/machines/base" "$partial"
