-- undo.lua: take back what runs wrote after checkpoints that are not theirs. (after frame.lua)
-- KEYS  2 writes (hash write name -> value)   3 written (zset of write names, lexical)
-- ARGV  3 name to go on after, '' to begin   4 how many writes are looked at   5… run ids
-- Reply: name to go on after; '' at the end.
local undone = {}
for i = 5, #ARGV do undone[ARGV[i]] = true end

local from = ARGV[3] == '' and '-' or '(' .. ARGV[3]
local names = redis.call('ZRANGE', KEYS[3], from, '+', 'BYLEX', 'LIMIT', 0, ARGV[4])
for _, name in ipairs(names) do
  local stored = redis.call('HGET', KEYS[2], name)
  local left = stored
  while left and left ~= '' do
    local run, older = layers_of(left)
    if not undone[run] then break end
    left = older
  end
  if left == '' then
    redis.call('HDEL', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
  elseif left ~= stored then
    redis.call('HSET', KEYS[2], name, left)
  end
end
return #names < tonumber(ARGV[4]) and '' or names[#names]
