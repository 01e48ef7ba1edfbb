-- finish.lua: put before the scripts that end a run. Ends it in the record, the queue and its thread, in one step.
-- A waiting run of the same thread becomes due; it is on the same release, for a thread with an unfinished run never moves.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- k: queue, epochs, states, attempts, wake, run, events, thread, thread_runs, waiting; channels ended, grown
local function finish(k, run, epoch, status, result, run_ttl, event_ttl, thread_ttl)
  local now = now_ms()
  redis.call('ZREM', k.queue, run)
  redis.call('HDEL', k.epochs, run)
  redis.call('HDEL', k.states, run)
  redis.call('HDEL', k.attempts, run)
  redis.call('HSET', k.run, 'status', status, 'result', result, 'ended_ms', string.format('%.0f', now), 'ended_epoch', epoch)
  redis.call('EXPIRE', k.run, run_ttl)
  redis.call('XADD', k.events, '*', 'e', 'end', 'd', result)
  redis.call('EXPIRE', k.events, event_ttl)
  redis.call('LREM', k.waiting, 0, run)
  if redis.call('HGET', k.thread, 'active') == run then
    local following = redis.call('LPOP', k.waiting)
    if following then
      redis.call('HSET', k.thread, 'active', following)
      redis.call('HSET', k.states, following, 'pending')
      redis.call('ZADD', k.queue, now, following)
      redis.call('LPUSH', k.wake, '1')
      redis.call('LTRIM', k.wake, 0, 999)
    else
      redis.call('HDEL', k.thread, 'active')
      redis.call('EXPIRE', k.thread, thread_ttl)
      redis.call('EXPIRE', k.thread_runs, thread_ttl)
    end
  end
  redis.call('HSET', k.thread, 'updated_ms', string.format('%.0f', now))
  redis.call('PUBLISH', k.ended, run)
  redis.call('PUBLISH', k.grown, run)
end

local function finish_keys(first)
  return {queue = KEYS[first], epochs = KEYS[first + 1], states = KEYS[first + 2], attempts = KEYS[first + 3],
          wake = KEYS[first + 4], run = KEYS[first + 5], events = KEYS[first + 6], thread = KEYS[first + 7],
          thread_runs = KEYS[first + 8], waiting = KEYS[first + 9], ended = KEYS[first + 10], grown = KEYS[first + 11]}
end
