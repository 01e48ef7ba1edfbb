-- read.lua: checkpoints of one thread, each as it stood at one moment. (after frame.lua)
-- KEYS  1 index (zset)   2 records (hash)   3 blobs (hash)   4 writes (hash)   5 written (zset)
-- ARGV  1 'full', or 'records' to leave values and writes out
--       then names; one that ends with its namespace's NUL asks for the newest of that namespace
-- Reply per name: nil (there is none) or {name, record} and in full {…, values, write names, write values};
--       record is nil when only the index knows it, a value is nil when it is lost.
local CHUNK = 1000 -- unpack() puts its results on Lua's stack, which is bounded

local function fetch(key, names, first)
  local values = {}
  for from = first, #names, CHUNK do
    local part = redis.call('HMGET', key, unpack(names, from, math.min(from + CHUNK - 1, #names)))
    for i = 1, #part do values[#values + 1] = part[i] end
  end
  return values
end

local found = {}
for i = 2, #ARGV do
  local name = ARGV[i]
  if name:sub(-1) == '\0' then
    name = redis.call('ZRANGE', KEYS[1], '(' .. name:sub(1, -2) .. '\1', '[' .. name, 'BYLEX', 'REV', 'LIMIT', 0, 1)[1]
  end
  local record = name and redis.call('HGET', KEYS[2], name)
  if not name or (not record and name == ARGV[i]) then
    found[#found + 1] = false
  elseif not record or ARGV[1] ~= 'full' then
    found[#found + 1] = {name, record}
  else
    local head = head_of(record)
    local writes = redis.call('ZRANGE', KEYS[5], '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX')
    found[#found + 1] = {name, record, fetch(KEYS[3], head, 3), writes, fetch(KEYS[4], writes, 1)}
  end
end
return found
