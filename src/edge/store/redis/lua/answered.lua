-- Keeps what was answered, unless it was given back before anyone was told of it. KEYS: the third is the reservation, the
-- fourth the answer. ARGV: the sixth is the answer.
local entry = read_entry(KEYS[3])
if entry and entry.state == 'R' and entry.name ~= '' and redis.call('EXISTS', KEYS[4]) == 0 then
  return { 'BACK', text(sequence) }
end
if entry then
  sequence = sequence + 1
  redis.call('HSET', KEYS[1], 'sequence', text(sequence))
  redis.call('SET', KEYS[4], ARGV[6])
end
return { 'OK', text(sequence) }
