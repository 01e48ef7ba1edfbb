-- cron_create.lua: write a cron down. Once per cron id.
-- KEYS  1 crons  2 cron  3 crons of the tenant  4 tenants  5 the thread that it writes to, if any
-- ARGV  1 cron id  2 tenant  3 most per tenant  4 next moment, ms  5... fields of the record, name and value in turn
-- Reply the digest of the request that made it, this one or an earlier one; error replies NOTHREAD (the thread is not the
-- tenant's, or is being deleted), LIMIT.
local digest = redis.call('HGET', KEYS[2], 'digest')
if digest then return digest end
if KEYS[5] and redis.call('HGET', KEYS[5], 'tenant') ~= ARGV[2] then return redis.error_reply('NOTHREAD') end
if redis.call('SCARD', KEYS[3]) >= tonumber(ARGV[3]) then return redis.error_reply('LIMIT') end
redis.call('HSET', KEYS[2], 'cron_id', ARGV[1], 'tenant', ARGV[2], unpack(ARGV, 5))
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('SADD', KEYS[4], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
return redis.call('HGET', KEYS[2], 'digest')
