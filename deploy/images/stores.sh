#!/bin/sh
# Start one of the stores in its container: start postgres|redis|minio. Data in /data; secrets below /run/secrets.
set -eu
umask 077
secrets=/run/secrets

password_in() { sed -E 's#^[^:]*://[^:]*:([^@]*)@.*$#\1#' "$1"; }

as_superuser() { PGPASSWORD=$(cat $secrets/stores/postgres_password) psql --quiet --set ON_ERROR_STOP=1 --host /tmp --username postgres "$@"; }

make_postgres() {
    initdb --pgdata /data/new --username postgres --pwfile $secrets/stores/postgres_password --auth scram-sha-256 \
        --encoding UTF8 --locale-provider builtin --locale C.UTF-8 --no-instructions
    echo 'host all all all scram-sha-256' >> /data/new/pg_hba.conf
    # Reached by nobody until all is there.
    pg_ctl --pgdata /data/new --wait --options "-c listen_addresses='' -c unix_socket_directories=/tmp" start
    as_superuser --command 'create database morphbatch' postgres
    as_superuser --file /opt/stores/roles.sql morphbatch
    # By standard input: a command line shows passwords to whoever lists processes.
    as_superuser postgres <<SQL
set password_encryption = 'scram-sha-256';
alter role morphbatch_owner login password '$(password_in $secrets/owner/migration_url)';
alter role morphbatch_service login password '$(password_in $secrets/service/database_url)';
alter role morphbatch_analyst login password '$(password_in $secrets/analyst/analyst_url)';
alter role morphbatch_scaler login password '$(password_in $secrets/scaler/connection)';
revoke all on database postgres, template1 from public;
SQL
    pg_ctl --pgdata /data/new --wait --mode fast stop
    mv /data/new /data/postgres
}

case $1 in
postgres)
    if [ ! -e /data/postgres ]; then
        rm -rf /data/new
        make_postgres
    fi
    rm -f /data/postgres/postmaster.pid # of a container that is gone
    exec postgres -D /data/postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections=200 \
        -c shared_buffers=256MB -c max_wal_size=2GB -c wal_compression=on -c jit=off -c timezone=UTC
    ;;
redis)
    # It keeps nothing on disk: what it carries is published again from Postgres.
    printf 'user default on >%s ~* &* +@all -@admin\nmaxmemory 256mb\nmaxmemory-policy noeviction\n' \
        "$(cat $secrets/stores/redis_password)" > /tmp/redis.conf
    printf 'bind * -::*\nport 6379\nprotected-mode no\ndir /tmp\ndaemonize no\nsave ""\nappendonly no\n' >> /tmp/redis.conf
    exec valkey-server /tmp/redis.conf
    ;;
minio)
    MINIO_ROOT_USER=$(cat $secrets/service/s3_access_key)
    MINIO_ROOT_PASSWORD=$(cat $secrets/service/s3_secret_key)
    MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_morphbatch="Bearer $(cat $secrets/service/webhook_token)"
    export MINIO_ROOT_USER MINIO_ROOT_PASSWORD MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_morphbatch
    export MINIO_NOTIFY_WEBHOOK_ENABLE_morphbatch=on MINIO_BROWSER=off MINIO_UPDATE=off
    export MINIO_NOTIFY_WEBHOOK_ENDPOINT_morphbatch=http://api:8080/events/object-created
    export MINIO_NOTIFY_WEBHOOK_QUEUE_DIR_morphbatch=/data/events
    mkdir -p /data/minio /data/events
    exec minio server --quiet --address :9000 --config-dir /tmp/minio /data/minio
    ;;
esac
