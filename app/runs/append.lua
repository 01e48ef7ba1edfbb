-- append.lua: add events to a run's stream. (after fence.lua)
-- KEYS  1 epochs  2 events  3 grown (channel)
-- ARGV  1 run id  2 epoch  3 entries kept at most  4 attempt  5 number of the first event in this epoch
--       6... event and data (JSON) in turn
-- Reply how many were written. Those that an earlier call wrote, whose reply was lost, are left out; more may
-- have gathered behind them since.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local done = 0
if last[1] then
  local entry = {}
  for i = 1, #last[1][2], 2 do entry[last[1][2][i]] = last[1][2][i + 1] end
  if entry.p == ARGV[2] then done = tonumber(entry.s) end
end
local number, written = tonumber(ARGV[5]), 0
for i = 6, #ARGV, 2 do
  if number > done then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[i], 'd', ARGV[i + 1], 'a', ARGV[4],
      'p', ARGV[2], 's', string.format('%.0f', number))
    written = written + 1
  end
  number = number + 1
end
redis.call('PUBLISH', KEYS[3], ARGV[1])
return written
