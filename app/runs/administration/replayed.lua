-- replayed.lua: a failed run has been replayed: it is a dead letter no more, and says which run goes on with its work.
-- KEYS  1 run  2 dead
-- ARGV  1 run id  2 id of the run that replays it
-- The record may have expired or been deleted meanwhile: then it must not come back.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'replayed_by', ARGV[2]) end
return redis.call('ZREM', KEYS[2], ARGV[1])
