#!/bin/sh
# Writes Redis's users (users.acl) and the exporter's password file from mounted secrets, before Redis starts.
#
# TEMPLATE   users.acl with @NAME@ where the password hashes of user NAME belong
# PASSWORDS  folder with one file per user; each line of a file is a password that is accepted, so that
#            a password can be changed without an outage: add a line, move the clients, take the old line out
# TARGET     folder that Redis reads from; in memory
set -eu
umask 077

hashes() { # hashes FILE: "#<sha256> #<sha256> …"
  while IFS= read -r password || [ -n "$password" ]; do
    [ -n "$password" ] || continue
    hash=$(printf %s "$password" | sha256sum)
    printf '#%s ' "${hash%% *}"
  done < "$1"
}

cp "$TEMPLATE" "$TARGET/users.acl"
for user in $(sed -n 's/.*@\([a-z]*\)@.*/\1/p' "$TEMPLATE"); do
  if [ ! -s "$PASSWORDS/$user" ]; then
    echo "redis-users: the secret has no password for the user $user; add the key $user to it" >&2
    exit 1
  fi
  sed "s|@$user@|$(hashes "$PASSWORDS/$user")|" "$TARGET/users.acl" > "$TARGET/users.new"
  mv "$TARGET/users.new" "$TARGET/users.acl"
done
if [ -s "$PASSWORDS/exporter" ]; then
  printf '{"%s": "%s"}\n' "$EXPORTER_ADDRESS" "$(head -n 1 "$PASSWORDS/exporter")" > "$TARGET/exporter.json"
fi
