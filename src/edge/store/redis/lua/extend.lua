-- Lets a reservation live longer. KEYS: the fourth is the reservation. ARGV: the second is until when.
local entry, till = read_entry(KEYS[4]), tonumber(ARGV[2])
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
