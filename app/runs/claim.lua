-- claim.lua: hand the longest-due runs of a release to one worker, atomically, each under a new epoch.
-- (after queue.lua)
-- KEYS  1 queue  2 epochs  3 states  4 attempts  5 wake  6 releases  7 last claim of this worker
-- ARGV  1 most runs  2 lease, ms  3 request id (the same again when a reply was lost)  4 release
-- Reply {runs, ms until the next is due or -1}; a run is {id, epoch, attempt, state, ms that it was due, '1' when it
-- had been claimed before}, its state `running` or how it was asked to stop while nobody had it.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('HSET', KEYS[6], ARGV[4], string.format('%.0f', now))

local last = redis.call('HMGET', KEYS[7], 'request', 'reply')
if last[1] == ARGV[3] then return cjson.decode(last[2]) end

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local runs = {}
for i = 1, #due, 2 do
  local run = due[i]
  -- Above the clock too: a Redis that lost its last second must not hand out an epoch twice.
  local held = tonumber(redis.call('HGET', KEYS[2], run) or '0')
  local epoch = string.format('%.0f', math.max(held + 1, now_us))
  local state = redis.call('HGET', KEYS[3], run)
  if not asked_to_stop(state) then
    state = 'running'
    redis.call('HSET', KEYS[3], run, state)
  end
  redis.call('HSET', KEYS[2], run, epoch)
  redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), run)
  local attempt = redis.call('HINCRBY', KEYS[4], run, 1)
  runs[#runs + 1] = {run, epoch, string.format('%.0f', attempt), state, string.format('%.0f', now - tonumber(due[i + 1])),
    held > 0 and '1' or '0'}
end

local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local pause = '-1'
if head[2] then pause = string.format('%.0f', math.max(0, tonumber(head[2]) - now)) end
if #runs == 0 then
  redis.call('DEL', KEYS[5]) -- nothing is due: tokens of runs that others took would only wake workers for nothing
  return {{}, pause}
end
redis.call('HSET', KEYS[7], 'request', ARGV[3], 'reply', cjson.encode({runs, pause}))
redis.call('PEXPIRE', KEYS[7], ARGV[2])
return {runs, pause}
