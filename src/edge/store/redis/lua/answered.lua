-- Keeps what was answered. KEYS: the third is the reservation, the fourth the answer. ARGV: the sixth is the answer.
if read_entry(KEYS[3]) then
  sequence = sequence + 1
  redis.call('HSET', KEYS[1], 'sequence', text(sequence))
  redis.call('SET', KEYS[4], ARGV[6])
end
return { 'OK', text(sequence) }
