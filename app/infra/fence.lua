-- fence.lua: put before every script that writes for a worker; refuses an epoch that is not the run's newest.
-- KEYS  1 epochs (hash run id -> epoch)
-- ARGV  1 run id   2 epoch held; '' writes without a fence (maintenance, never a worker)
-- Error reply `STALE <epoch>`: a newer worker owns the run; `STALE -`: the run is over.
if ARGV[2] ~= '' then
  local current = redis.call('HGET', KEYS[1], ARGV[1])
  if current ~= ARGV[2] then return redis.error_reply('STALE ' .. (current or '-')) end
end
