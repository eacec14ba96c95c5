-- A node that has seen nothing yet: joins the generation that is here, or begins one where there is none. KEYS: the
-- generation, its epochs. ARGV: what epochs begin with.
local found = redis.call('GET', KEYS[1])
if not found then
  local epoch = ARGV[1] .. '.0'
  redis.call('SET', KEYS[1], struct.pack('<sddds', epoch, 0, 0, math.huge, ''))
  redis.call('SET', KEYS[2], epoch .. ':0 ')
  return { epoch, '0', '' }
end
local epoch, sequence, _, _, lost = struct.unpack('<sddds', found)
return { epoch, string.format('%.0f', sequence), lost }
