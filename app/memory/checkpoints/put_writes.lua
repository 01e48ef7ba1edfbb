-- put_writes.lua: store what tasks wrote after a checkpoint; doing it twice changes nothing.
-- KEYS  2 index (zset)   3 records (hash)   4 blobs (hash)   5 writes (hash write name -> value)
--       6 written (zset of write names, lexical)
-- ARGV  3 ttl, s   then triples: write name, value, 'first' when the first value stays, 'last' when the last one counts
for i = 4, #ARGV, 3 do
  if ARGV[i + 2] == 'last' then
    redis.call('HSET', KEYS[5], ARGV[i], ARGV[i + 1])
  else
    redis.call('HSETNX', KEYS[5], ARGV[i], ARGV[i + 1])
  end
  redis.call('ZADD', KEYS[6], 0, ARGV[i])
end
for i = 2, 6 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
