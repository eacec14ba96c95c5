-- A node that has seen nothing yet: joins the generation that is here, or begins one where there is none. KEYS: the
-- generation. ARGV: the epoch to begin with.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'lost')
if not found[1] then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'sequence', '0', 'open', '0')
  return { ARGV[1], '0', '' }
end
return { found[1], found[2], found[3] or '' }
