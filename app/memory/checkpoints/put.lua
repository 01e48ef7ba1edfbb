-- put.lua: store one checkpoint: its record, the channel values that are new, its place in the index.
-- KEYS  2 index (zset of names, lexical)   3 records (hash name -> record)   4 blobs (hash blob name -> value)
--       5 writes (hash)   6 written (zset)   7 threads (zset, by the end of their life in unix s)
--       8 threads of the run (set), only when the checkpoint names one
-- ARGV  3 ttl, s   4 thread id   5 name   6 record
--       7 how many new values follow, each as blob name and value; then the names of the stored values it refers to
-- Reply: those of the last that are not stored. Then nothing was written, and the caller sends them as new ones.
local last = 7 + 2 * ARGV[7]
local missing = {}
for i = last + 1, #ARGV do
  if redis.call('HEXISTS', KEYS[4], ARGV[i]) == 0 then missing[#missing + 1] = ARGV[i] end
end
if #missing > 0 then return missing end
for i = 8, last, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[3], ARGV[5], ARGV[6])
redis.call('ZADD', KEYS[2], 0, ARGV[5])
live(2, ARGV[3], ARGV[4])
return missing
