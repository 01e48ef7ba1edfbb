-- cron_advance.lua: record what a moment of a cron came to, and set its next one.
-- KEYS  1 crons  2 cron
-- ARGV  1 cron id  2 the moment, ms  3 revision that the next moment was computed from  4 next moment, ms, or 'none'
--       5 run that was started, ''  6 what went wrong, ''
-- Reply 'first' when this call recorded the moment, 'known' when one before did, 'gone' when the cron was deleted.
-- A next moment that somebody has set already is left alone, and a moment whose schedule was changed meanwhile stays
-- due: starting its run again starts nothing.
local moment = tonumber(ARGV[2])
local known = redis.call('HMGET', KEYS[2], 'revision', 'last_moment_ms')
if not known[1] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 'gone'
end
local reply = 'known'
if tonumber(known[2] or '0') < moment then
  reply = 'first'
  redis.call('HSET', KEYS[2], 'last_moment_ms', ARGV[2], 'last_error', ARGV[6])
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 'last_run_id', ARGV[5]) end
end
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == moment and known[1] == ARGV[3] then
  if ARGV[4] == 'none' then
    redis.call('ZREM', KEYS[1], ARGV[1])
  else
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
  end
end
return reply
