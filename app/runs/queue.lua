-- queue.lua: put before the scripts that move runs; what they have in common.

-- Redis's clock in ms.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Whether a run's state says that it was asked to stop: `Stop` in app/runs/model.py.
local function asked_to_stop(state)
  return state == 'cancelling' or state == 'interrupting' or state == 'rolling_back'
end

-- Let anyone claim a run from `due` (ms) on. A worker sleeps until what was next due when it looked: this wakes one.
local function enqueue(queue, wake, run, due)
  redis.call('ZADD', queue, due, run)
  redis.call('LPUSH', wake, '1')
  redis.call('LTRIM', wake, 0, 999)
end
