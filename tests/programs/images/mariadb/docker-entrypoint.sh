#!/bin/bash
# Root makes the directories mysql's own and becomes mysql; mysql makes the tables and becomes the server.
set -eo pipefail
shopt -s nullglob
if [ "${1:0:1}" = - ]; then
    set -- mariadbd "$@"
fi
data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock
if [ "$1" = mariadbd ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$data" /run/mysqld
    find "$data" /run/mysqld \! -user mysql -exec chown mysql: '{}' +
    exec gosu mysql "${BASH_SOURCE[0]}" "$@"
fi
if [ "$1" = mariadbd ] && [ ! -d "$data/mysql" ]; then
    if [ -z "$MARIADB_ROOT_PASSWORD" ]; then
        echo >&2 'Database is uninitialized and password option is not specified'
        exit 1
    fi
    mariadb-install-db --skip-test-db --auth-root-authentication-method=normal --datadir="$data" --user=mysql >/dev/null
    "$@" --skip-networking --socket="$socket" &
    server=$!
    until mariadb-admin --socket="$socket" --silent ping; do
        kill -0 "$server"
        sleep 0.2
    done
    quoted=${MARIADB_ROOT_PASSWORD//\\/\\\\}
    quoted=${quoted//\'/\\\'}
    mariadb --socket="$socket" --user=root <<EOF
CREATE USER 'root'@'%' IDENTIFIED BY '$quoted';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE USER 'healthcheck'@'localhost';
CREATE DATABASE IF NOT EXISTS \`${MARIADB_DATABASE:-test}\`;
SET PASSWORD FOR 'root'@'localhost' = PASSWORD('$quoted');
EOF
    for script in /docker-entrypoint-initdb.d/*.sql; do
        mariadb --socket="$socket" --user=root --password="$MARIADB_ROOT_PASSWORD" <"$script"
    done
    kill "$server"
    wait "$server"
    echo 'MariaDB init process done. Ready for start up.'
fi
exec "$@"
