-- accept.lua: write a run and make it due, or put it behind the unfinished run of its thread. Once per run id.
-- (after queue.lua, run_keys.lua)
-- KEYS  1-16 run_keys.lua  17 runs_of  18 tenants  19 idempotency
-- ARGV  1 run id  2 thread id  3 tenant  4 release  5 '1' when the thread must exist  6 '1' to move the thread here
--       7 digest of the request ('' without an idempotency key)  8 idempotency window, s  9 first event (JSON)
--       10 strategy  11 pause before it may begin, ms  12 longest pause in the queue, ms
--       13 the run whose question it answers ('' when it answers none)  14 root of its effects
--       15 run TTL, s  16 thread TTL, s
--       17 end of the run whose answer it gives once more, ms: the thread must be as that run left it ('' else)
--       18 runs that may wait behind an unfinished one  19... fields of the run record, name and value in turn
-- Reply {run id, its thread ('' when an earlier request made it), unfinished runs that it supersedes, separated by spaces,
-- the newest first}; error replies NOTHREAD, MOVED <release>, MISMATCH, OCCUPIED <run>, NOTASKED, FULL.
local run, thread_id, tenant, release = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('EXISTS', k.run) == 1 then -- an earlier reply was lost
  local record = redis.call('HMGET', k.run, 'thread_id', 'supersedes')
  return {run, record[1], record[2] or ''}
end
if ARGV[7] ~= '' then
  local prior = redis.call('GET', KEYS[19])
  if prior then
    if string.sub(prior, 1, 64) ~= ARGV[7] then return redis.error_reply('MISMATCH') end
    return {string.sub(prior, 66), '', ''}
  end
end

local now = now_ms()
local stamp = string.format('%.0f', now)
local known = redis.call('HMGET', k.thread, 'tenant', 'release', 'active', 'asked', 'updated_ms')
if known[1] then
  if known[1] ~= tenant then return redis.error_reply('NOTHREAD') end
  if ARGV[10] == 'reject' and known[3] then return redis.error_reply('OCCUPIED ' .. known[3]) end
  if ARGV[10] == 'enqueue' and redis.call('LLEN', k.waiting) >= tonumber(ARGV[18]) then
    return redis.error_reply('FULL')
  end
  if ARGV[13] ~= '' and (known[4] ~= ARGV[13] or known[3]) then return redis.error_reply('NOTASKED') end
  if ARGV[17] ~= '' and (known[5] ~= ARGV[17] or known[3]) then return redis.error_reply('NOTASKED') end
  if known[2] ~= release then
    if ARGV[6] ~= '1' or known[3] then return redis.error_reply('MOVED ' .. known[2]) end
    redis.call('HSET', k.thread, 'release', release)
  end
elseif ARGV[5] == '1' then
  return redis.error_reply('NOTHREAD')
else
  redis.call('HSET', k.thread, 'tenant', tenant, 'release', release, 'created_ms', stamp)
end

local superseded = ''
if known[3] and (ARGV[10] == 'interrupt' or ARGV[10] == 'rollback') then
  local unfinished = redis.call('LRANGE', k.waiting, 0, -1)
  table.insert(unfinished, 1, known[3])
  for i = #unfinished, 1, -1 do superseded = superseded .. (superseded == '' and '' or ' ') .. unfinished[i] end
end
redis.call('HSET', k.run, 'run_id', run, 'thread_id', thread_id, 'tenant', tenant, 'release', release,
  'accepted_ms', stamp, 'strategy', ARGV[10], 'supersedes', superseded, 'answers', ARGV[13],
  'effects_root', ARGV[14], unpack(ARGV, 19))
redis.call('HSET', k.epochs, run, '0')
redis.call('HSET', k.attempts, run, '0')
redis.call('XADD', k.events, '*', 'e', 'metadata', 'd', ARGV[9])
if ARGV[7] ~= '' then redis.call('SET', KEYS[19], ARGV[7] .. ':' .. run, 'EX', ARGV[8]) end

-- What the indexes name may have expired; they are kept for as long as it could have lived.
local run_ms, thread_ms = tonumber(ARGV[15]) * 1000, tonumber(ARGV[16]) * 1000
for _, index in ipairs({k.thread_runs, KEYS[17]}) do
  redis.call('ZADD', index, now, run)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - run_ms - thread_ms)
end
redis.call('ZADD', k.threads_of, now, thread_id)
redis.call('ZREMRANGEBYSCORE', k.threads_of, '-inf', now - 2 * thread_ms)
redis.call('PEXPIRE', k.threads_of, 2 * thread_ms)
redis.call('PEXPIRE', KEYS[17], run_ms + thread_ms)
redis.call('SADD', KEYS[18], tenant)

-- A thread with an unfinished run does not expire; the end of the last one sets the clock.
redis.call('PERSIST', k.thread)
redis.call('PERSIST', k.thread_runs)
redis.call('PERSIST', k.effects)
redis.call('HDEL', k.thread, 'asked', 'asked_root') -- answered, or passed over by a new message
local pause = tonumber(ARGV[11])
-- Behind an unfinished run there is no telling when it would begin, be the pause ever so short.
if pause > tonumber(ARGV[12]) or (pause > 0 and known[3]) then
  redis.call('HSET', k.states, run, 'pending')
  redis.call('ZADD', k.later, now + pause, run)
elseif known[3] then
  redis.call('HSET', k.states, run, 'waiting')
  redis.call('RPUSH', k.waiting, run)
else
  if not known[1] then redis.call('HSET', k.run, 'first', '1') end -- nothing of the thread need be read
  redis.call('HSET', k.thread, 'active', run)
  redis.call('HSET', k.states, run, 'pending')
  enqueue(k.queue, k.wake, run, now + pause)
end
return {run, thread_id, superseded}
