-- cancel.lua: end a run that nobody executes; ask the owner of a running one to stop.
-- (after finish.lua)
-- KEYS  as complete.lua
-- ARGV  1 run id  2 result of a run cancelled here (JSON)  3 run TTL, s  4 event TTL, s  5 thread TTL, s
-- Reply the run's state after the call: cancelled, cancelling, or the status that it had ended with.
local k = finish_keys(1)
local state = redis.call('HGET', k.states, ARGV[1])
if not state then return redis.call('HGET', k.run, 'status') end
if state == 'running' or state == 'cancelling' then
  redis.call('HSET', k.states, ARGV[1], 'cancelling')
  return 'cancelling'
end
finish(k, ARGV[1], '0', 'cancelled', ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return 'cancelled'
