-- remove_thread.lua: forget a thread that has no run left.
-- KEYS  1 thread  2 thread_runs  3 waiting  4 threads_of  5 removing
-- ARGV  1 thread id
-- Reply 1; 0 when there is a run still, which is to be removed first.
if redis.call('ZCARD', KEYS[2]) > 0 then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
return 1
