-- chain.lua: what channels have gathered along a line of ancestors, back to where each one's value is stored.
-- (after frame.lua)
-- KEYS  1 records (hash)   2 blobs (hash)   3 writes (hash)   4 written (zset)
-- ARGV  1 namespace, ended by NUL   2 id of the newest ancestor   3 how many ancestors at most   4… channels
-- Reply {id to go on with, '' at the end of the line; channels that are still open; per ancestor, newest first:
--       {names and values of the channels that end here, write names, write values}}; a lost value is nil.
local namespace, id = ARGV[1], ARGV[2]
local open, left = {}, #ARGV - 3
for i = 4, #ARGV do open[ARGV[i]] = true end
local steps = {}
while id ~= '' and left > 0 and #steps < tonumber(ARGV[3]) do
  local name = namespace .. id
  local record = redis.call('HGET', KEYS[1], name)
  if not record then
    id = ''
    break
  end
  local names, values = {}, {}
  for _, write in ipairs(redis.call('ZRANGE', KEYS[4], '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX')) do
    local value = redis.call('HGET', KEYS[3], write)
    if not value or open[head_of(value)[2]] then
      names[#names + 1] = write
      values[#values + 1] = value
    end
  end
  local head = head_of(record)
  local ended = {}
  for i = 3, #head do
    local channel = head[i]:sub(#namespace + 1):match('^(.*)%z')
    if open[channel] then
      open[channel] = nil
      left = left - 1
      ended[#ended + 1] = head[i]
      ended[#ended + 1] = redis.call('HGET', KEYS[2], head[i])
    end
  end
  steps[#steps + 1] = {ended, names, values}
  id = head[2]
end
local still = {}
for i = 4, #ARGV do
  if open[ARGV[i]] then still[#still + 1] = ARGV[i] end
end
return {id, still, steps}
