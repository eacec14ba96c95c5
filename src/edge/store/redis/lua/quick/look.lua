-- The way of nearly every look: nothing is due.
local function quickly()
  if #KEYS == 3 then return end
  local epoch, seen, now = struct.unpack('<sdd', ARGV[1])
  local found = redis.call('MGET', unpack(KEYS, 3))
  if not found[1] then return end
  local here, sequence, _, first_due, lost = struct.unpack('<sddds', found[1])
  if here ~= epoch or sequence < seen or lost ~= '' or first_due <= now then return end
  for i = 2, #found do found[i] = found[i] or '-' end
  found[1] = 'H' .. struct.pack('<d', sequence)
  return table.concat(found)
end

local answered = quickly()
if answered then return answered end
