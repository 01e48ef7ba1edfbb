-- heartbeat.lua: extend the lease of each run that this worker still owns.
-- KEYS  1 queue  2 epochs  3 states  4 releases
-- ARGV  1 lease, ms  2 release  3... run id and epoch in turn
-- Reply one word per run: running, how it is asked to stop, or stale (a newer worker owns it, or it is over).
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[4], ARGV[2], string.format('%.0f', now))
local reply = {}
for i = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[1]), ARGV[i])
    reply[#reply + 1] = redis.call('HGET', KEYS[3], ARGV[i]) or 'stale'
  else
    reply[#reply + 1] = 'stale'
  end
end
return reply
