-- A reservation by its name (KEYS: the fourth), or by that which its client gave it (the fifth, if there is one).
local key = KEYS[4]
if KEYS[5] then
  local id = redis.call('GET', KEYS[5])
  key = id and PREFIX .. 'r:' .. id
end
local entry = key and read_entry(key)
finish()
if not entry then return { 'UNKNOWN', text(sequence) } end
return { 'OK', text(sequence), told(entry) }
