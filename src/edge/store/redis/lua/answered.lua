-- Keeps what was answered, unless it was given back before anyone was told of it. KEYS: the fourth is the reservation,
-- the fifth the answer. ARGV: the second is the answer.
local entry = read_entry(KEYS[4])
if entry and entry.state == 'R' and entry.name ~= '' and redis.call('EXISTS', KEYS[5]) == 0 then
  return { 'BACK', text(sequence) }
end
if entry then
  is_stale = true
  finish()
  redis.call('SET', KEYS[5], ARGV[2])
end
return { 'OK', text(sequence) }
