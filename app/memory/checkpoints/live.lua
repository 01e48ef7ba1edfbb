-- live.lua: put before scripts that write to a thread; renews the life of all of it.
-- KEYS  from `first` on: the thread's five keys, threads (zset, by the end of their life in unix s), then any number
--       of sets of a run's threads
local function live(first, ttl, thread)
  -- All of the thread, not only what is written now: a channel that never changes must live as long as its thread.
  for i = first, first + 4 do redis.call('EXPIRE', KEYS[i], ttl) end
  local now = redis.call('TIME')[1]
  redis.call('ZADD', KEYS[first + 5], now + ttl, thread)
  redis.call('ZREMRANGEBYSCORE', KEYS[first + 5], '-inf', '(' .. now)
  for i = first + 6, #KEYS do
    redis.call('SADD', KEYS[i], thread)
    redis.call('EXPIRE', KEYS[i], ttl)
  end
end
