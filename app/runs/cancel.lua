-- cancel.lua: end a run that nobody executes; ask the owner of a running one to stop.
-- (after queue.lua, run_keys.lua, finish.lua)
-- KEYS  run_keys.lua
-- ARGV  1 run id  2 thread id  3 how it is to stop: cancelling, interrupting or rolling_back
--       4 status of a run that ends here  5 its result (JSON)  6 run TTL, s  7 event TTL, s  8 thread TTL, s
--       9 the run's release as it was read
-- Reply the run's state after the call: how it is to stop, or the status that it has ended with; 'changed' when it has
-- moved to another release's queue since (look again). A run that waits for a person has ended; to cancel it takes its
-- question back.
local run = ARGV[1]
local state = redis.call('HGET', k.states, run)
if not state then
  local status = redis.call('HGET', k.run, 'status')
  if status == 'interrupted' and ARGV[3] == 'cancelling' and redis.call('HGET', k.thread, 'asked') == run then
    redis.call('HDEL', k.thread, 'asked', 'asked_root')
    redis.call('HSET', k.run, 'status', ARGV[4], 'result', ARGV[5])
    status = ARGV[4]
  end
  return status
end
if asked_to_stop(state) then return state end
if state == 'running' then
  redis.call('HSET', k.states, run, ARGV[3])
  return ARGV[3]
end
if redis.call('HGET', k.run, 'release') ~= ARGV[9] then return 'changed' end
if ARGV[3] == 'rolling_back' and redis.call('HGET', k.epochs, run) ~= '0' then
  -- An earlier attempt has written to the thread: whoever claims the run next undoes that, and then ends it.
  redis.call('HSET', k.states, run, ARGV[3])
  redis.call('ZREM', k.later, run)
  enqueue(k.queue, k.wake, run, now_ms())
  return ARGV[3]
end
finish(run, ARGV[2], '0', ARGV[4], ARGV[5], {run = ARGV[6], events = ARGV[7], thread = ARGV[8]}, '')
return ARGV[4]
