-- due.lua: what is due to be moved on: runs that were put off, and crons. Changes nothing.
-- KEYS  1 later (zset run id -> due, ms)  2 crons (zset cron id -> next moment, ms)
-- ARGV  1 most of each
-- Reply {run ids, cron id and moment in turn, ms until the next of either is due or -1}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local runs = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local crons = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local pause = -1
for _, key in ipairs(KEYS) do
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[2] then
    local left = math.max(0, tonumber(head[2]) - now)
    if pause < 0 or left < pause then pause = left end
  end
end
return {runs, crons, string.format('%.0f', pause)}
