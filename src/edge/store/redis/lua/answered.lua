-- Keeps what was answered. KEYS: the fourth is the reservation, the fifth the answer. ARGV: the second is the answer.
if read_entry(KEYS[4]) then
  is_stale = true
  finish()
  redis.call('SET', KEYS[5], ARGV[2])
end
return { 'OK', text(sequence) }
