-- A reservation by its name (KEYS: the third), or by that which its client gave it (the fourth, if it is another).
local key = KEYS[3]
if KEYS[4] ~= key then
  local id = redis.call('GET', KEYS[4])
  key = id and PREFIX .. 'r:' .. id
end
local entry = key and read_entry(key)
finish()
if not entry then return { 'UNKNOWN', text(sequence) } end
return { 'OK', text(sequence), told(entry) }
