
need unshare util-linux
dnf=$(command -v dnf5 || command -v dnf) || fail 'dnf is missing; install the package dnf'

# The distribution's repositories and keys, so that the host need not be of that distribution; and the place of the
# tree's own package database, which a host's rpm may have elsewhere.
mkdir "$work/repositories"
repositories >"$work/repositories/base.repo"
printf '%%_dbpath %s\n%%_install_langs C.utf8\n' "$database" >"$work/.rpmmacros"
export HOME="$work"
run_dnf() {
    apart "$dnf" -y --installroot="$partial" --releasever="$release" --forcearch="$arch" \
        --setopt=reposdir="$work/repositories" --setopt=varsdir="$work" --setopt=cachedir="$work/cache" \
        --setopt=install_weak_deps=False --setopt=tsflags=nodocs "$@"
}
run_dnf install $packages
