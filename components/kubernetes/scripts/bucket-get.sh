#!/bin/sh
# Copies BACKUP from REMOTE (rclone's name of a bucket and folder) into FOLDER; the newest where BACKUP is empty.
#
# PATTERN   extended regular expression that the names of copies match
set -eu
name=${BACKUP:-$(rclone lsf --files-only "$REMOTE" | grep -E "$PATTERN" | sort | tail -n 1)}
[ -n "$name" ] || { echo "bucket-get: there is no copy in $REMOTE" >&2; exit 1; }
rclone copyto "$REMOTE/$name" "$FOLDER/$name"
echo "bucket-get: fetched $name"
