-- release.lua: give a run back, to be claimed by anyone after a pause. (after fence.lua, queue.lua)
-- KEYS  1 epochs  2 queue  3 states  4 attempts  5 wake  6 run  7 later
-- ARGV  1 run id  2 epoch  3 pause, ms  4 attempts to be recorded as used  5 longest pause in the queue, ms
--       6 class of the error that ended the attempt, ''
local now, pause = now_ms(), tonumber(ARGV[3])
local state = redis.call('HGET', KEYS[3], ARGV[1])
if asked_to_stop(state) then
  pause = 0 -- whoever claims it next ends it
else
  redis.call('HSET', KEYS[3], ARGV[1], 'pending')
end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[4])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[6], 'last_error', ARGV[6]) end
if pause > tonumber(ARGV[5]) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[7], now + pause, ARGV[1])
  return 'OK'
end
enqueue(KEYS[2], KEYS[5], ARGV[1], now + pause)
return 'OK'
