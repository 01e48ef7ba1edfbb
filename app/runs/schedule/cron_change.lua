-- cron_change.lua: change a cron, if nobody has changed it since it was read.
-- KEYS  1 crons  2 cron
-- ARGV  1 cron id  2 tenant  3 revision as it was read  4 revision that this change makes
--       5 next moment, ms: 'same' leaves it, 'none' stops it  6... fields of the record, name and value in turn
-- Reply 'OK', also when this change was made before and the reply was lost; 'changed'; error reply NOCRON.
local known = redis.call('HMGET', KEYS[2], 'tenant', 'revision')
if known[1] ~= ARGV[2] then return redis.error_reply('NOCRON') end
if known[2] == ARGV[4] then return 'OK' end
if known[2] ~= ARGV[3] then return 'changed' end
redis.call('HSET', KEYS[2], 'revision', ARGV[4], unpack(ARGV, 6))
if ARGV[5] == 'none' then
  redis.call('ZREM', KEYS[1], ARGV[1])
elseif ARGV[5] ~= 'same' then
  redis.call('ZADD', KEYS[1], ARGV[5], ARGV[1])
end
return 'OK'
