#!/bin/sh
# Runs once in a new primary: standbys may connect, and the shop's own role and database exist.
set -eu
echo "host replication postgres all scram-sha-256" >> "$PGDATA/pg_hba.conf"
psql -v ON_ERROR_STOP=1 -U postgres <<SQL
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE DATABASE shop OWNER app;
SQL
