-- promote.lua: move one due run from `later` to the queue, or behind the unfinished run of its thread. Once.
-- (after queue.lua)
-- KEYS  1 later  2 queue  3 states  4 wake (both of the release to run on)  5 run
--       6 thread  7 thread_runs  8 waiting  9 effects of the run's root
-- ARGV  1 run id  2 the run's release as it was read  3 the thread's as it was read, '<release> <active run>'
--       4 release to run on
-- Reply 'queued', 'waiting', 'early' (it was put off again), 'gone' (moved before, or over), 'changed' (look again).
local run = ARGV[1]
local due = redis.call('ZSCORE', KEYS[1], run)
if not due then return 'gone' end
local now = now_ms()
if tonumber(due) > now then return 'early' end
if redis.call('HEXISTS', KEYS[3], run) == 0 then -- it has ended
  redis.call('ZREM', KEYS[1], run)
  return 'gone'
end
local record = redis.call('HMGET', KEYS[5], 'release', 'tenant')
local thread = redis.call('HMGET', KEYS[6], 'release', 'active')
if record[1] ~= ARGV[2] or (thread[1] or '') .. ' ' .. (thread[2] or '') ~= ARGV[3] then return 'changed' end

redis.call('ZREM', KEYS[1], run)
if not thread[1] then -- it expired meanwhile: the run was accepted, so it is executed, in a new conversation
  redis.call('HSET', KEYS[6], 'tenant', record[2], 'created_ms', string.format('%.0f', now))
end
redis.call('HSET', KEYS[6], 'release', ARGV[4])
redis.call('HSET', KEYS[5], 'release', ARGV[4])
redis.call('ZADD', KEYS[7], 'NX', now, run)
for _, key in ipairs({KEYS[6], KEYS[7], KEYS[9]}) do redis.call('PERSIST', key) end
if thread[2] and thread[2] ~= run then
  redis.call('HSET', KEYS[3], run, 'waiting')
  redis.call('RPUSH', KEYS[8], run)
  return 'waiting'
end
redis.call('HSET', KEYS[6], 'active', run)
redis.call('HDEL', KEYS[6], 'asked', 'asked_root') -- a question that a run asked meanwhile is passed over
redis.call('HSET', KEYS[3], run, 'pending')
enqueue(KEYS[2], KEYS[4], run, now)
return 'queued'
