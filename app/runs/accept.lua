-- accept.lua: write a run and make it due, or put it behind the unfinished run of its thread. Once per run id.
-- KEYS  1 queue  2 epochs  3 states  4 attempts  5 wake  6 run  7 events  8 thread  9 thread_runs  10 waiting
--       11 ended  12 grown  13 idempotency
-- ARGV  1 run id  2 thread id  3 tenant  4 release  5 '1' when the thread must exist  6 '1' to move the thread here
--       7 digest of the request ('' without an idempotency key)  8 idempotency window, s  9 first event (JSON)
--       10... fields of the run record, name and value in turn
-- Reply {run id, '1' when this call made it}; error replies NOTHREAD, MOVED <release>, MISMATCH.
local run, thread_id, tenant, release = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', KEYS[6]) == 1 then return {run, '1'} end -- an earlier reply was lost
if ARGV[7] ~= '' then
  local prior = redis.call('GET', KEYS[13])
  if prior then
    if string.sub(prior, 1, 64) ~= ARGV[7] then return redis.error_reply('MISMATCH') end
    return {string.sub(prior, 66), '0'}
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stamp = string.format('%.0f', now)
local known = redis.call('HMGET', KEYS[8], 'tenant', 'release', 'active')
if known[1] then
  if known[1] ~= tenant then return redis.error_reply('NOTHREAD') end
  if known[2] ~= release then
    if ARGV[6] ~= '1' or known[3] then return redis.error_reply('MOVED ' .. known[2]) end
    redis.call('HSET', KEYS[8], 'release', release)
  end
elseif ARGV[5] == '1' then
  return redis.error_reply('NOTHREAD')
else
  redis.call('HSET', KEYS[8], 'tenant', tenant, 'release', release, 'created_ms', stamp)
end

redis.call('HSET', KEYS[6], 'run_id', run, 'thread_id', thread_id, 'tenant', tenant, 'release', release,
  'accepted_ms', stamp, unpack(ARGV, 10))
redis.call('ZADD', KEYS[9], now, run)
redis.call('HSET', KEYS[2], run, '0')
redis.call('HSET', KEYS[4], run, '0')
redis.call('XADD', KEYS[7], '*', 'e', 'metadata', 'd', ARGV[9])
if ARGV[7] ~= '' then redis.call('SET', KEYS[13], ARGV[7] .. ':' .. run, 'EX', ARGV[8]) end

-- A thread with an unfinished run does not expire; the end of the last one sets the clock.
redis.call('PERSIST', KEYS[8])
redis.call('PERSIST', KEYS[9])
if known[3] then
  redis.call('HSET', KEYS[3], run, 'waiting')
  redis.call('RPUSH', KEYS[10], run)
else
  redis.call('HSET', KEYS[8], 'active', run)
  redis.call('HSET', KEYS[3], run, 'pending')
  redis.call('ZADD', KEYS[1], now, run)
  redis.call('LPUSH', KEYS[5], '1')
  redis.call('LTRIM', KEYS[5], 0, 999)
end
return {run, '1'}
