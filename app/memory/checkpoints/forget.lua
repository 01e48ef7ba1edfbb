-- forget.lua: remove a thread's keys, and the thread from the sets of its runs.
-- ARGV  3 thread id   4 how many keys, from KEYS[2] on, are removed; the others are sets that lose the thread
local last = 1 + ARGV[4]
for i = 2, last do redis.call('UNLINK', KEYS[i]) end
for i = last + 1, #KEYS do redis.call('SREM', KEYS[i], ARGV[3]) end
