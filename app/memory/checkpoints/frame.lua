-- frame.lua: put before scripts that read what a record or a write begins with: `_framed` in layout.py.
-- The head, and how many bytes it takes with the length before it.
local function head_of(stored)
  local bytes = 4 + struct.unpack('>I4', stored)
  return cmsgpack.unpack(stored:sub(5, bytes)), bytes
end

-- Of a write: the run that made it, and the writes of other runs whose place it took.
local function layers_of(stored)
  local head, bytes = head_of(stored)
  return head[1], stored:sub(bytes + head[4] + 1)
end
