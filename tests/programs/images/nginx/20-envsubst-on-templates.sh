#!/bin/sh
# The configuration is made of templates and the environment, at each start.
set -e
for template in /etc/nginx/templates/*.template; do
    name=$(basename "$template" .template)
    # shellcheck disable=SC2016
    envsubst '$GREETING' <"$template" >"/etc/nginx/conf.d/$name"
done
