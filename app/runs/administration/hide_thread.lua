-- hide_thread.lua: take a thread from its tenant, so that no new run of it is accepted while it is being removed.
-- KEYS  1 thread  2 removing
-- ARGV  1 tenant  2 thread id
-- Reply 1; 0 when the tenant has no such thread. Again for a removal that was cut short: 1.
local tenant = redis.call('HGET', KEYS[1], 'tenant')
if tenant == ARGV[1] then
  redis.call('HSET', KEYS[1], 'tenant', '', 'removed_by', tenant)
elseif tenant ~= '' or redis.call('HGET', KEYS[1], 'removed_by') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), ARGV[2])
return 1
