-- complete.lua: end a run, once, by its owner; lets the next run of the thread become due.
-- (after finish.lua)
-- KEYS  1 queue  2 epochs  3 states  4 attempts  5 wake  6 run  7 events  8 thread  9 thread_runs  10 waiting
--       11 ended  12 grown (channels)
-- ARGV  1 run id  2 epoch  3 status  4 result (JSON)  5 run TTL, s  6 event TTL, s  7 thread TTL, s
--       8 attempt  9... events not yet written, name and data (JSON) in turn
-- Reply 'OK', also when this owner ended it before and the reply was lost; error reply STALE <epoch or ->.
local k = finish_keys(1)
local current = redis.call('HGET', k.epochs, ARGV[1])
if current ~= ARGV[2] then
  if not current and redis.call('HGET', k.run, 'ended_epoch') == ARGV[2] then return 'OK' end
  return redis.error_reply('STALE ' .. (current or '-'))
end
for i = 9, #ARGV, 2 do
  redis.call('XADD', k.events, '*', 'e', ARGV[i], 'd', ARGV[i + 1], 'a', ARGV[8])
end
finish(k, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
return 'OK'
