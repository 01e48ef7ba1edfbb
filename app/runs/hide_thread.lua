-- hide_thread.lua: take a thread from its tenant, so that no new run of it is accepted while it is being removed.
-- KEYS  1 thread
-- ARGV  1 tenant
-- Reply 1; 0 when the tenant has no such thread. Again for a removal that was cut short: 1.
local tenant = redis.call('HGET', KEYS[1], 'tenant')
if tenant == ARGV[1] then
  redis.call('HSET', KEYS[1], 'tenant', '', 'removed_by', tenant)
  return 1
end
if tenant == '' and redis.call('HGET', KEYS[1], 'removed_by') == ARGV[1] then return 1 end
return 0
