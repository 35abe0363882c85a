#!/bin/sh
# The entry point of a replica: a base backup the first time, then the server.
set -eu
export PGPASSWORD="$POSTGRES_PASSWORD"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  until pg_basebackup -h "$PRIMARY" -U postgres -D "$PGDATA" -R -X stream -c fast; do sleep 1; done
  chmod 700 "$PGDATA"
fi
exec postgres -c wal_retrieve_retry_interval=500ms
