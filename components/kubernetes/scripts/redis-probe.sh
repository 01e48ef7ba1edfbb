#!/bin/sh
# redis-probe.sh alive|ready: whether Redis lives, or serves.
#
# Reading a large log of writes takes minutes, in which Redis answers LOADING: alive and not ready. To restart it then
# would only begin the reading anew. BUSY is a script that takes long, MASTERDOWN a resynchronisation: alive too.
# The user `probe` has no password and may PING, nothing else. REDIS_PORT; TLS_CA names the authority where Redis
# speaks TLS only.
set -u
cli=$(command -v redis-cli || command -v valkey-cli) || { echo "redis-probe: the image has no redis-cli" >&2; exit 1; }
reply=$(timeout 4 "$cli" -h 127.0.0.1 -p "$REDIS_PORT" ${TLS_CA:+--tls --cacert "$TLS_CA"} \
  --user probe --pass none --no-auth-warning ping 2>&1)
case $1:$reply in
  *:PONG) exit 0 ;;
  alive:*LOADING* | alive:*BUSY* | alive:*MASTERDOWN*) exit 0 ;;
esac
echo "redis-probe: $reply" >&2
exit 1
