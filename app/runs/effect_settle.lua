-- effect_settle.lua: write what calls came to; each only over the making that it belongs to. (after fence.lua)
-- KEYS  1 epochs  2 effects (hash field -> record, see effect_begin.lua)
-- ARGV  1 run id  2 epoch  3 seconds to live of a journal that begins
--       4... field, nonce, state, body in turn; state '' forgets a call that was not begun after all
-- Reply how many were written, those of an earlier call whose reply was lost included. A record that is gone, because
-- Redis lost its last second, is written anew: what is known of an effect is worth keeping.
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local begins, written = redis.call('EXISTS', KEYS[2]) == 0, 0
for i = 4, #ARGV, 4 do
  local field, nonce, state, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record = redis.call('HGET', KEYS[2], field)
  local held, at = nonce, now
  if record then held, at = string.match(record, '^%a+ (%x+) (%d+) ') end
  if held == nonce then
    if state == '' then
      redis.call('HDEL', KEYS[2], field)
    else
      redis.call('HSET', KEYS[2], field, table.concat({state, nonce, at, ARGV[2], body}, ' '))
    end
    written = written + 1
  end
end
if begins and written > 0 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return written
