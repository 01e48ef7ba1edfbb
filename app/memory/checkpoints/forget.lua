-- forget.lua: take a thread out of the sets of its runs, and out of the list of threads when it has no checkpoint.
-- KEYS  2-6 index, records, blobs, writes, written   7 threads (zset)   8… threads of runs (sets)
-- ARGV  3 thread id   4 'all' to remove the thread's keys first
if ARGV[4] == 'all' then
  for i = 2, 6 do redis.call('UNLINK', KEYS[i]) end
end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('ZREM', KEYS[7], ARGV[3]) end
for i = 8, #KEYS do redis.call('SREM', KEYS[i], ARGV[3]) end
