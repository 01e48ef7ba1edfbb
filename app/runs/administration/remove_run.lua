-- remove_run.lua: forget a run, whatever its state. Whoever executes it meets STALE at the next write.
-- KEYS  1 queue  2 later  3 epochs  4 states  5 attempts  6 run  7 events  8 effects of the run  9 effects of its root
--       10 waiting  11 thread_runs  12 runs_of  13 dead  14 idempotency  15 cp_run  16 ended  17 grown (channels)
-- ARGV  1 run id  2 thread id  3 release, '' when there is no record
-- Reply 1; 0 when it has moved to another release since the caller looked. Nothing of it is left afterwards, so a second
-- call changes nothing. No waiting run of the thread becomes due: it is removed next.
local run = ARGV[1]
if (redis.call('HGET', KEYS[6], 'release') or '') ~= ARGV[3] then return 0 end
redis.call('ZREM', KEYS[1], run)
redis.call('ZREM', KEYS[2], run)
for i = 3, 5 do redis.call('HDEL', KEYS[i], run) end
for i = 6, 9 do redis.call('UNLINK', KEYS[i]) end
redis.call('LREM', KEYS[10], 0, run)
for i = 11, 13 do redis.call('ZREM', KEYS[i], run) end
local known = redis.call('GET', KEYS[14])
if known and string.sub(known, 66) == run then redis.call('UNLINK', KEYS[14]) end -- not one that a later run has taken
redis.call('SREM', KEYS[15], ARGV[2])
redis.call('PUBLISH', KEYS[16], run)
redis.call('PUBLISH', KEYS[17], run)
return 1
