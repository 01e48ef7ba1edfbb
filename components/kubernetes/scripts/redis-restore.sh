#!/bin/sh
# Puts a copy into the data folder of a Redis that is stopped: it becomes the base of a new log of writes.
#
# FOLDER                   where the copies are (redis-<UTC time>.rdb)
# BACKUP                   name of the copy; the newest where it is empty
# DATA                     Redis's data folder, whose log of writes is put aside as appendonlydir.before-<UTC time>
# REDIS_HOST, REDIS_PORT   where it would answer: a Redis that runs would go on writing its old log over this
# Redis 7 and Valkey 8 take an RDB file as the base of their log (multi-part AOF); a dump.rdb they would not read.
set -eu
cli=$(command -v redis-cli || command -v valkey-cli) || { echo "redis-restore: the image has no redis-cli" >&2; exit 1; }
code=0
timeout 5 "$cli" -h "$REDIS_HOST" -p "$REDIS_PORT" ${TLS_CA:+--tls --cacert "$TLS_CA"} ping > /dev/null 2>&1 || code=$?
if [ "$code" -eq 0 ] || [ "$code" -ge 124 ]; then # it answered, or it hangs
  echo "redis-restore: Redis runs at $REDIS_HOST:$REDIS_PORT; scale its StatefulSet to 0 first" >&2
  exit 1
fi

name=${BACKUP:-$(ls "$FOLDER" | grep -E '^redis-[0-9]{8}T[0-9]{6}Z\.rdb$' | sort | tail -n 1)}
case $name in
  '') echo "redis-restore: there is no copy in $FOLDER" >&2; exit 1 ;;
  */*) echo "redis-restore: BACKUP is a file name, not a path" >&2; exit 1 ;;
esac
[ -f "$FOLDER/$name" ] || { echo "redis-restore: there is no copy $name; there are:" >&2; ls "$FOLDER" >&2; exit 1; }

now=$(date -u +%Y%m%dT%H%M%SZ)
new=$DATA/.restored-$now
mkdir "$new"
cp "$FOLDER/$name" "$new/appendonly.aof.1.base.rdb"
printf 'file appendonly.aof.1.base.rdb seq 1 type b\n' > "$new/appendonly.aof.manifest"
sync
[ ! -d "$DATA/appendonlydir" ] || mv "$DATA/appendonlydir" "$DATA/appendonlydir.before-$now"
mv "$new" "$DATA/appendonlydir"
echo "redis-restore: $name is in place; scale the StatefulSet to 1. What was there is in appendonlydir.before-$now"
