#!/bin/sh
# Draw what deploy/compose.yaml needs to be secret into the folder beside this script, which git ignores. What is there
# already stays: to change one, remove its file, run this again and restart what uses it. PostgreSQL and Grafana take their
# password at their first start alone; later it is changed in them.
#
# `sealpool` must be on the path (make install puts it into .venv/bin), or SEALPOOL say how it is run, in an image say:
#   SEALPOOL="docker run --rm --user $(id -u) --volume $PWD/deploy/compose/secrets:/var/lib/sealpool \
#       --entrypoint sealpool sealpool/index-server:0.1.0" deploy/compose/secrets.sh
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

# The folder is closed to others on this machine. The files in it are not: the services, with other users' numbers, read
# them where they are mounted.
chmod 0700 .

password() {
    [ -e "$1" ] || { head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$1"; }
}

token() {
    # shellcheck disable=SC2086 # SEALPOOL may be several words
    [ -e "$1_token" ] || ${SEALPOOL:-sealpool} token create --name "$1" --role "$2" --file tokens.json >"$1_token.new"
    [ -e "$1_token" ] || mv "$1_token.new" "$1_token"
}

password postgresql_password
password grafana_password
token admin admin      # for people
token scheduler write  # what it sends to the learner and the index server
token learner admin    # what it sends to the index server, where re-embedding makes pools
[ -e scheduler_settings.yaml ] ||
    printf 'database_url: postgresql+psycopg://sealpool:%s@postgresql/sealpool\n' "$(cat postgresql_password)" \
        >scheduler_settings.yaml
chmod 0444 -- *
