-- complete.lua: end a run, once, by its owner; lets the next run of the thread become due.
-- (after queue.lua, run_keys.lua, finish.lua)
-- KEYS  run_keys.lua
-- ARGV  1 run id  2 thread id  3 epoch  4 status  5 result (JSON)  6 run TTL, s  7 event TTL, s  8 thread TTL, s
--       9 '1' when it waits for a person  10 class of its error, ''  11 newest checkpoint of a run that failed, ''
--       12 '1' when it was claimed to be stopped  13 attempt  14... events not yet written, name and data (JSON) in turn
-- Reply 'OK', also when this owner ended it before and the reply was lost; 'rolling_back' when it was asked for that
-- meanwhile and has not ended; error reply STALE <epoch or ->.
local run, epoch = ARGV[1], ARGV[3]
local current = redis.call('HGET', k.epochs, run)
if current ~= epoch then
  if not current and redis.call('HGET', k.run, 'ended_epoch') == epoch then return 'OK' end
  return redis.error_reply('STALE ' .. (current or '-'))
end
if ARGV[12] ~= '1' and redis.call('HGET', k.states, run) == 'rolling_back' then return 'rolling_back' end
for i = 14, #ARGV, 2 do
  redis.call('XADD', k.events, '*', 'e', ARGV[i], 'd', ARGV[i + 1], 'a', ARGV[13])
end
if ARGV[10] ~= '' then redis.call('HSET', k.run, 'last_error', ARGV[10]) end
if ARGV[11] ~= '' then redis.call('HSET', k.run, 'checkpoint_id', ARGV[11]) end
finish(run, ARGV[2], epoch, ARGV[4], ARGV[5], {run = ARGV[6], events = ARGV[7], thread = ARGV[8]}, ARGV[9])
return 'OK'
