-- run_keys.lua: put before the scripts that accept or end a run; names the keys that all of them take first, in the
-- order of `RunLedger._run_keys`. `ended` and `grown` are channels.
local k = {queue = KEYS[1], epochs = KEYS[2], states = KEYS[3], attempts = KEYS[4], wake = KEYS[5], run = KEYS[6],
           events = KEYS[7], thread = KEYS[8], thread_runs = KEYS[9], waiting = KEYS[10], ended = KEYS[11],
           grown = KEYS[12], later = KEYS[13], effects = KEYS[14], dead = KEYS[15], threads_of = KEYS[16]}
