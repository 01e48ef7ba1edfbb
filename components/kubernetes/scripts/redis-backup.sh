#!/bin/sh
# Asks a running Redis for its whole data (as a replica would) and leaves them in FOLDER as redis-<UTC time>.rdb.
#
# REDIS_HOST, REDIS_PORT   where it is; TLS_CA names the authority where it speaks TLS only
# PASSWORD_FILE            password of the user `backup`, which may replicate and nothing else
# KEEP                     copies that stay in FOLDER; older ones are removed
# A copy has its name only once it is complete and has been checked.
set -eu
cli=$(command -v redis-cli || command -v valkey-cli) || { echo "redis-backup: the image has no redis-cli" >&2; exit 1; }
check=$(command -v redis-check-rdb || command -v valkey-check-rdb || true)
REDISCLI_AUTH=$(head -n 1 "$PASSWORD_FILE")
export REDISCLI_AUTH

name=redis-$(date -u +%Y%m%dT%H%M%SZ).rdb
trap 'rm -f "$FOLDER/.part.rdb"' EXIT
"$cli" -h "$REDIS_HOST" -p "$REDIS_PORT" ${TLS_CA:+--tls --cacert "$TLS_CA"} --user backup --no-auth-warning \
  --rdb "$FOLDER/.part.rdb"
[ "$(head -c 5 "$FOLDER/.part.rdb")" = REDIS ] || [ "$(head -c 6 "$FOLDER/.part.rdb")" = VALKEY ] ||
  { echo "redis-backup: what came is no RDB file" >&2; exit 1; }
[ -z "$check" ] || "$check" "$FOLDER/.part.rdb" > /dev/null ||
  { echo "redis-backup: the copy is damaged" >&2; exit 1; }
sync "$FOLDER/.part.rdb" 2> /dev/null || sync
mv "$FOLDER/.part.rdb" "$FOLDER/$name"
echo "redis-backup: wrote $name, $(wc -c < "$FOLDER/$name") bytes"

# By name, which is by time. The newest KEEP stay.
ls "$FOLDER" | grep -E '^redis-[0-9]{8}T[0-9]{6}Z\.rdb$' | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do
  rm -f "$FOLDER/$old"
  echo "redis-backup: removed $old"
done
