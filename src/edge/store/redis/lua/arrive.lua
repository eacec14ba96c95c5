-- A node found that no script is known here, as where Redis was started again or another one took over: from here on it
-- is another epoch, so that a node that saw more of the one before is told, however far others go on meanwhile. KEYS: the
-- generation, its epochs. ARGV: the epoch and the highest sequence that the node saw, a name.
local found = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'lost')
local here, sequence, epochs = found[1] or '', found[2] or '-1', redis.call('GET', KEYS[2]) or ''
if found[3] or not has_all(epochs, here, tonumber(sequence), ARGV[1], tonumber(ARGV[2])) then return '' end
local epoch = string.match(here, '^%x+') .. '.' .. ARGV[3]
-- A node that was away for longer than the last of them is told by these.
redis.call('SET', KEYS[2], string.sub(epochs .. epoch .. ':' .. sequence .. ' ', -4000))
redis.call('HSET', KEYS[1], 'epoch', epoch)
return epoch
