-- put_writes.lua: store what tasks wrote after a checkpoint; doing it twice changes nothing. (after frame.lua, live.lua)
-- KEYS  2 index (zset)   3 records (hash)   4 blobs (hash)   5 writes (hash write name -> value)
--       6 written (zset of write names, lexical)   7 threads (zset)
-- ARGV  3 ttl, s   4 thread id
--       then triples: write name, value, 'first' when the first value stays, 'last' when the last one counts
for i = 5, #ARGV, 3 do
  local name, value = ARGV[i], ARGV[i + 1]
  if ARGV[i + 2] == 'first' then
    redis.call('HSETNX', KEYS[5], name, value)
  else
    -- What another run had written here is kept behind the new value, for the case that this run is taken back.
    local before = redis.call('HGET', KEYS[5], name)
    if before then
      local run, older = layers_of(before)
      value = value .. (run == layers_of(value) and older or before)
    end
    redis.call('HSET', KEYS[5], name, value)
  end
  redis.call('ZADD', KEYS[6], 0, name)
end
live(2, ARGV[3], ARGV[4])
