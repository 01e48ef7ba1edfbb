-- finish.lua: put before the scripts that end a run. Ends it in the record, the queue and its thread, in one step.
-- (after queue.lua, run_keys.lua)
-- A waiting run of the same thread becomes due; it is on the same release, for a thread with an unfinished run never moves.

-- ttl: seconds that the run, its events and its thread are kept; asks: '1' when it waits for a person
local function finish(run, thread_id, epoch, status, result, ttl, asks)
  local now = now_ms()
  local stamp = string.format('%.0f', now)
  local started = redis.call('HGET', k.epochs, run) ~= '0'
  redis.call('ZREM', k.queue, run)
  redis.call('ZREM', k.later, run)
  redis.call('HDEL', k.epochs, run)
  redis.call('HDEL', k.states, run)
  redis.call('HDEL', k.attempts, run)
  redis.call('HSET', k.run, 'status', status, 'result', result, 'ended_ms', stamp, 'ended_epoch', epoch)
  redis.call('EXPIRE', k.run, ttl.run)
  redis.call('XADD', k.events, '*', 'e', 'end', 'd', result)
  redis.call('EXPIRE', k.events, ttl.events)
  redis.call('EXPIRE', k.effects, ttl.run)
  redis.call('ZREMRANGEBYSCORE', k.dead, '-inf', now - tonumber(ttl.run) * 1000)
  if status == 'error' or status == 'timeout' then
    redis.call('ZADD', k.dead, now, run)
    redis.call('EXPIRE', k.dead, ttl.run)
  end
  redis.call('LREM', k.waiting, 0, run)
  local active = redis.call('HGET', k.thread, 'active')
  if active == run then
    active = redis.call('LPOP', k.waiting)
    if active then
      redis.call('HSET', k.thread, 'active', active)
      redis.call('HSET', k.states, active, 'pending')
      enqueue(k.queue, k.wake, active, now)
    else
      redis.call('HDEL', k.thread, 'active')
    end
  end
  local asked = false
  if asks == '1' and not active then
    asked = true
    redis.call('HSET', k.thread, 'asked', run, 'asked_root', redis.call('HGET', k.run, 'effects_root') or run)
    -- It says what is asked, and which graph is to be told the answer.
    redis.call('EXPIRE', k.run, math.max(tonumber(ttl.run), tonumber(ttl.thread)))
  elseif not started and not active then
    local answers = redis.call('HGET', k.run, 'answers')
    if answers and answers ~= '' then -- an answer that was taken back before anybody acted on it
      asked = true
      redis.call('HSET', k.thread, 'asked', answers, 'asked_root', redis.call('HGET', k.run, 'effects_root'))
    end
  end
  -- While the question can be answered, what was done before it must not be done again.
  if asked then redis.call('EXPIRE', k.effects, math.max(tonumber(ttl.run), tonumber(ttl.thread))) end
  redis.call('HSET', k.thread, 'updated_ms', stamp)
  redis.call('ZADD', k.threads_of, now, thread_id)
  if not active then
    redis.call('EXPIRE', k.thread, ttl.thread)
    redis.call('EXPIRE', k.thread_runs, ttl.thread)
  end
  redis.call('PUBLISH', k.ended, run)
  redis.call('PUBLISH', k.grown, run)
end
