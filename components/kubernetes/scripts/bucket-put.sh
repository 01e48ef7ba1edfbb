#!/bin/sh
# Copies what lies in FOLDER to REMOTE (rclone's name of a bucket and folder), then removes all but the newest KEEP there.
#
# PATTERN   extended regular expression that the names of copies match; nothing else is touched
set -eu
rclone copy --no-traverse "$FOLDER" "$REMOTE"
echo "bucket-put: copied to $REMOTE: $(ls "$FOLDER" | tr '\n' ' ')"
# By name, which is by time.
rclone lsf --files-only "$REMOTE" | grep -E "$PATTERN" | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do
  rclone deletefile "$REMOTE/$old"
  echo "bucket-put: removed $old"
done
