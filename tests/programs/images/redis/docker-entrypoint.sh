#!/bin/sh
set -e
# First argument is an option, or a configuration file: they are the server's.
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
    set -- redis-server "$@"
fi
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
fi
# A restrictive umask, unless one was set.
if [ "$(umask)" = 0022 ]; then
    umask 0077
fi
exec "$@"
