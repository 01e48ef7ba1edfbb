-- effect_begin.lua: write down that a call is about to be made, or say what is known of it. (after fence.lua)
-- A record is `<state> <nonce> <ms> <epoch> <body>`: ms is when the call was begun, body is JSON.
-- KEYS  1 epochs  2 effects (hash field -> record)
-- ARGV  1 run id  2 epoch  3 field  4 nonce  5 nonce of the record that this call replaces; '' when it replaces none
--       6 body  7 seconds to live of a journal that begins
-- Reply {record, now in ms}: ours when it bears our nonce, and the call may be made; else nothing was written.
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local record = redis.call('HGET', KEYS[2], ARGV[3])
-- A record under our own nonce is one whose reply was lost: it is no other's, and is not written anew.
if record and string.match(record, '^%a+ (%x+) ') ~= ARGV[5] then return {record, now} end
local begins = redis.call('EXISTS', KEYS[2]) == 0
record = 'intent ' .. ARGV[4] .. ' ' .. now .. ' ' .. ARGV[2] .. ' ' .. ARGV[6]
redis.call('HSET', KEYS[2], ARGV[3], record)
if begins then redis.call('EXPIRE', KEYS[2], ARGV[7]) end -- no other write may shorten what the ledger set
return {record, now}
