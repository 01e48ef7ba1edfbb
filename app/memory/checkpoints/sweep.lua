-- sweep.lua: remove the channel values that no checkpoint of the thread refers to. (after frame.lua)
-- KEYS  2 records (hash)   3 blobs (hash)
-- Reply: how many were removed. One pass over a thread's records: maintenance, not part of a run.
local used = {}
for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
  local head = head_of(record)
  for i = 3, #head do used[head[i]] = true end
end
local removed = 0
for _, blob in ipairs(redis.call('HKEYS', KEYS[3])) do
  if not used[blob] then removed = removed + redis.call('HDEL', KEYS[3], blob) end
end
return removed
