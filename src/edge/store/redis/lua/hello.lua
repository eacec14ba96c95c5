-- A node that has seen nothing yet: joins the generation that is here, or begins one where there is none. KEYS: the
-- generation. ARGV: the epoch to begin with.
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('SET', KEYS[1], struct.pack('<sddds', ARGV[1], 0, 0, math.huge, ''))
  return { ARGV[1], '0', '' }
end
local epoch, sequence, _, _, lost = struct.unpack('<sddds', found)
return { epoch, string.format('%.0f', sequence), lost }
