-- A node found that no script is known here, as where Redis was started again or another one took over: from here on it
-- is another epoch, so that a node that saw more of the one before is told, however far others go on meanwhile. KEYS: the
-- generation, its epochs. ARGV: the epoch and the highest sequence that the node saw, a name.
local found = redis.call('GET', KEYS[1])
if not found then return '' end
local here, sequence, open, first_due, lost = struct.unpack('<sddds', found)
local epochs, seen = redis.call('GET', KEYS[2]) or '', tonumber(ARGV[2])
if lost ~= '' or not has_all(epochs, here, sequence, ARGV[1], seen) then return '' end
local epoch = string.match(here, '^%x+') .. '.' .. ARGV[3]
-- A node that was away for longer than the last of them is told by these.
redis.call('SET', KEYS[2], string.sub(epochs .. epoch .. ':' .. string.format('%.0f', sequence) .. ' ', -4000))
redis.call('SET', KEYS[1], struct.pack('<sddds', epoch, sequence, open, first_due, ''))
return epoch
