-- Holds every charge, or none. KEYS: the fourth is the reservation, then the meters, then its client's name for it where
-- it has one, then the counter of its principal's open reservations where they are counted. ARGV: the third and fourth are the reservation, open or with what was used, what was charged left out.
local nothing = string.sub(ARGV[3], 1, 1) == 'E' and string.rep('\0', 16) or '0' .. string.rep('\0', 9)
local entry = decode_entry(KEYS[4], ARGV[3] .. string.rep(nothing, #charges) .. ARGV[4])
local counts = flags >= 8
local name_key = (not counts or flags % 4 >= 2) and KEYS[5 + #charges] or nil
local counter_key = counts and KEYS[#KEYS]
local known = read_entry(KEYS[4])
local named = name_key and redis.call('GET', name_key)
local holds = entry.state == 'O'

local function answer(code, ...)
  finish()
  return { code, text(sequence), ... }
end

if named then
  local other = read_entry(PREFIX .. 'r:' .. named)
  -- What was given back since nobody could be told of it leaves its key to another.
  local left = other and other.state == 'R' and redis.call('EXISTS', PREFIX .. 'a:' .. named) == 0
  if other and not left then return answer('NAMED', told(other)) end
end
if known then return answer('KNOWN', known.state) end
if holds and open >= most_open then return answer('FULL') end
if counter_key and open_of(counter_key) >= most_of then return answer('MANY') end

load_charged()
-- Each is looked at with what earlier ones take of the same meter, on a copy, so that a refusal leaves it as it is.
local at, sums, short = {}, {}, {}
for i, charge in ipairs(charges) do
  local key = charge.key
  if not at[key] then
    local before = meter_text(key)
    at[key] = advance(before ~= '' and read_meter(before), charge, now)
  end
  -- A limit that refuses has to have room for the least there can be, also where nothing is held.
  local needed = holds and charge.enforced and charge.amount == 0 and 1 or charge.amount
  sums[key] = add(sums[key] or 0, needed)
  local enough
  if holds then
    enough = fits(at[key], charge, sums[key])
  else
    enough = le(sums[key], MOST) and has_space(at[key], sums[key])
  end
  if not enough then short[#short + 1] = i end
end

local list, percents = {}, {}
if #short > 0 then
  for i, charge in ipairs(charges) do list[i], percents[i] = meter_text(charge.key), '0' end
  for _, i in ipairs(holds and short or {}) do
    local charge = charges[i]
    local percent = meters[charge.key] and warn(at[charge.key], charge) or 0
    if percent > 0 then
      percents[i] = text(percent)
      change_meter(charge.key, at[charge.key])
    end
  end
  return answer('SHORT', list, percents)
end

for i, charge in ipairs(charges) do
  local meter, part = at[charge.key], entry.parts[i]
  part.mark = hold(meter, charge.amount)
  if not holds then
    part.held, part.charged = 0, charge.unit == 'p' and 0 or charge.amount
    part.mark = close(meter, part.mark, charge.amount, part.charged, now)
  end
  percents[i] = text(warn(meter, charge))
  change_meter(charge.key, meter)
  list[i] = write_meter(meter)
end
if holds then open = open + 1 end
if counter_key then count_open(counter_key, 1) end
change_entry(entry)
finish()
if name_key then redis.call('SET', name_key, id_of(entry)) end
return { 'OK', text(sequence), list, percents, holds and '' or encode_entry(entry) }
