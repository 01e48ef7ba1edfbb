-- cron_delete.lua: forget a cron of this tenant.
-- KEYS  1 crons  2 cron  3 crons of the tenant
-- ARGV  1 cron id  2 tenant
-- Reply how many were forgotten; a second call forgets none.
if redis.call('HGET', KEYS[2], 'tenant') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
