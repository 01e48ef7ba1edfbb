-- drop.lua: remove checkpoints and what tasks wrote after them; their channel values stay until sweep.lua.
-- KEYS  2 index (zset)   3 records (hash)   4 writes (hash)   5 written (zset)
-- ARGV  3… names; the caller bounds how many
for i = 3, #ARGV do
  local name = ARGV[i]
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
  for _, write in ipairs(redis.call('ZRANGE', KEYS[5], '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX')) do
    redis.call('HDEL', KEYS[4], write)
    redis.call('ZREM', KEYS[5], write)
  end
end
