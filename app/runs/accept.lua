-- accept.lua: write a run and make it due, or put it behind the unfinished run of its thread. Once per run id.
-- KEYS  1 queue  2 epochs  3 states  4 attempts  5 wake  6 run  7 events  8 thread  9 thread_runs  10 waiting
--       11 ended  12 grown  13 later  14 effects  15 dead  16 threads_of  17 runs_of  18 tenants  19 idempotency
-- ARGV  1 run id  2 thread id  3 tenant  4 release  5 '1' when the thread must exist  6 '1' to move the thread here
--       7 digest of the request ('' without an idempotency key)  8 idempotency window, s  9 first event (JSON)
--       10 strategy  11 pause before it may begin, ms  12 longest pause in the queue, ms
--       13 the run whose question it answers ('' when it answers none)  14 root of its effects
--       15 run TTL, s  16 thread TTL, s  17... fields of the run record, name and value in turn
-- Reply {run id, its thread ('' when an earlier request made it), unfinished runs that it supersedes, separated by spaces,
-- the newest first}; error replies NOTHREAD, MOVED <release>, MISMATCH, OCCUPIED <run>, NOTASKED.
local run, thread_id, tenant, release = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', KEYS[6]) == 1 then -- an earlier reply was lost
  local record = redis.call('HMGET', KEYS[6], 'thread_id', 'supersedes')
  return {run, record[1], record[2] or ''}
end
if ARGV[7] ~= '' then
  local prior = redis.call('GET', KEYS[19])
  if prior then
    if string.sub(prior, 1, 64) ~= ARGV[7] then return redis.error_reply('MISMATCH') end
    return {string.sub(prior, 66), '', ''}
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local stamp = string.format('%.0f', now)
local known = redis.call('HMGET', KEYS[8], 'tenant', 'release', 'active', 'asked')
if known[1] then
  if known[1] ~= tenant then return redis.error_reply('NOTHREAD') end
  if ARGV[10] == 'reject' and known[3] then return redis.error_reply('OCCUPIED ' .. known[3]) end
  if ARGV[13] ~= '' and (known[4] ~= ARGV[13] or known[3]) then return redis.error_reply('NOTASKED') end
  if known[2] ~= release then
    if ARGV[6] ~= '1' or known[3] then return redis.error_reply('MOVED ' .. known[2]) end
    redis.call('HSET', KEYS[8], 'release', release)
  end
elseif ARGV[5] == '1' then
  return redis.error_reply('NOTHREAD')
else
  redis.call('HSET', KEYS[8], 'tenant', tenant, 'release', release, 'created_ms', stamp)
end

local superseded = ''
if known[3] and (ARGV[10] == 'interrupt' or ARGV[10] == 'rollback') then
  local unfinished = redis.call('LRANGE', KEYS[10], 0, -1)
  table.insert(unfinished, 1, known[3])
  for i = #unfinished, 1, -1 do superseded = superseded .. (superseded == '' and '' or ' ') .. unfinished[i] end
end
redis.call('HSET', KEYS[6], 'run_id', run, 'thread_id', thread_id, 'tenant', tenant, 'release', release,
  'accepted_ms', stamp, 'strategy', ARGV[10], 'supersedes', superseded, 'answers', ARGV[13],
  'effects_root', ARGV[14], unpack(ARGV, 17))
redis.call('HSET', KEYS[2], run, '0')
redis.call('HSET', KEYS[4], run, '0')
redis.call('XADD', KEYS[7], '*', 'e', 'metadata', 'd', ARGV[9])
if ARGV[7] ~= '' then redis.call('SET', KEYS[19], ARGV[7] .. ':' .. run, 'EX', ARGV[8]) end

-- What the indexes name may have expired; they are kept for as long as it could have lived.
local run_ms, thread_ms = tonumber(ARGV[15]) * 1000, tonumber(ARGV[16]) * 1000
for _, index in ipairs({KEYS[9], KEYS[17]}) do
  redis.call('ZADD', index, now, run)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - run_ms - thread_ms)
end
redis.call('ZADD', KEYS[16], now, thread_id)
redis.call('ZREMRANGEBYSCORE', KEYS[16], '-inf', now - 2 * thread_ms)
redis.call('PEXPIRE', KEYS[16], 2 * thread_ms)
redis.call('PEXPIRE', KEYS[17], run_ms + thread_ms)
redis.call('SADD', KEYS[18], tenant)

-- A thread with an unfinished run does not expire; the end of the last one sets the clock.
redis.call('PERSIST', KEYS[8])
redis.call('PERSIST', KEYS[9])
redis.call('PERSIST', KEYS[14])
redis.call('HDEL', KEYS[8], 'asked', 'asked_root') -- answered, or passed over by a new message
local pause = tonumber(ARGV[11])
if pause > tonumber(ARGV[12]) then
  redis.call('HSET', KEYS[3], run, 'pending')
  redis.call('ZADD', KEYS[13], now + pause, run)
elseif known[3] then
  redis.call('HSET', KEYS[3], run, 'waiting')
  redis.call('RPUSH', KEYS[10], run)
else
  redis.call('HSET', KEYS[8], 'active', run)
  redis.call('HSET', KEYS[3], run, 'pending')
  redis.call('ZADD', KEYS[1], now + pause, run)
  redis.call('LPUSH', KEYS[5], '1')
  redis.call('LTRIM', KEYS[5], 0, 999)
end
return {run, thread_id, superseded}
