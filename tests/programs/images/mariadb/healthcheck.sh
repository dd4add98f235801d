#!/bin/sh
# Is there a server that takes connections by TCP? (The one that makes the tables does not.)
set -eu
[ "$1" = --connect ]
mariadb --user=healthcheck --socket=/run/mysqld/mysqld.sock --skip-column-names \
    --execute='SELECT @@skip_networking' | grep -qx 0
