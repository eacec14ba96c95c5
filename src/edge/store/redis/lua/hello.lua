-- A node that has seen nothing yet: joins the generation that is here, or begins one where there is none. KEYS: the
-- generation, its epochs. ARGV: what epochs begin with.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'lost')
if not found[1] then
  local epoch = ARGV[1] .. '.0'
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'sequence', '0', 'open', '0')
  redis.call('SET', KEYS[2], epoch .. ':0 ')
  return { epoch, '0', '' }
end
return { found[1], found[2], found[3] or '' }
