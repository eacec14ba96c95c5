-- Lets a reservation live longer. KEYS: the third is the reservation. ARGV: the sixth is until when.
local entry, till = read_entry(KEYS[3]), tonumber(ARGV[6])
local code, what = 'OK'
if not entry then
  code, what = 'UNKNOWN', ''
elseif entry.state ~= 'O' then
  code, what = 'CLOSED', entry.state
else
  if till > entry.due then
    entry.due = till
    change_entry(entry)
  end
  what = text(entry.due)
end
finish()
return { code, text(sequence), what }
