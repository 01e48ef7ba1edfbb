-- copy.lua: make a thread's checkpoints those of another; doing it twice changes nothing.
-- KEYS  2-6 index, records, blobs, writes, written of the source   7-11 the same of the target   12 threads (zset)
--       13… threads of runs (sets)
-- ARGV  3 ttl, s   4 target's thread id
-- Reply: how many checkpoints of the target are not the source's; above 0 nothing was written.
local others = #redis.call('ZDIFF', 2, KEYS[7], KEYS[2])
if others > 0 then return others end
for i = 2, 6 do
  if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('COPY', KEYS[i], KEYS[i + 5], 'REPLACE') end
end
live(7, ARGV[3], ARGV[4])
return 0
