-- release.lua: give a run back, to be claimed by anyone after a pause. (after fence.lua)
-- KEYS  1 epochs  2 queue  3 states  4 attempts  5 wake  6 run  7 later
-- ARGV  1 run id  2 epoch  3 pause, ms  4 attempts to be recorded as used  5 longest pause in the queue, ms
--       6 class of the error that ended the attempt, ''
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local pause = tonumber(ARGV[3])
local state = redis.call('HGET', KEYS[3], ARGV[1])
if state == 'cancelling' or state == 'interrupting' or state == 'rolling_back' then
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
redis.call('ZADD', KEYS[2], now + pause, ARGV[1])
-- Workers sleep until what was next due when they looked: tell one that this has changed.
redis.call('LPUSH', KEYS[5], '1')
redis.call('LTRIM', KEYS[5], 0, 999)
return 'OK'
