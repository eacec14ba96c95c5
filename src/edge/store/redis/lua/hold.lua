-- Holds every charge, or none. KEYS: the third is the reservation, the fourth its client's name for it or again the
-- reservation. ARGV: from the sixth on, when it is due, how many may be open, its digest and name, `O` or what was used,
-- what nodes read.
local due, most_open, digest, name, state, body = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local id = string.sub(KEYS[3], #PREFIX + 3)
local known = read_entry(KEYS[3])
local named = KEYS[4] ~= KEYS[3] and redis.call('GET', KEYS[4])
local holds = state == 'O'

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

load_charged()
-- Each is looked at with what earlier ones take of the same meter, on a copy, so that a refusal leaves it as it is.
local at, sums, short = {}, {}, {}
for i, charge in ipairs(charges) do
  local key = charge.key
  if not at[key] then
    local before = meter_text(key)
    at[key] = advance(before ~= '' and read_meter(before), charge, now)
  end
  sums[key] = add(sums[key] or 0, charge.amount)
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

local entry = { key = KEYS[3], state = state, due = tonumber(due), created = ARGV[3], digest = digest, name = name,
  parts = {}, body = body }
for i, charge in ipairs(charges) do
  local meter = at[charge.key]
  local mark, held, charged = hold(meter, charge.amount), charge.amount, 0
  if not holds then
    held, charged = 0, charge.unit == 'p' and 0 or charge.amount
    mark = close(meter, mark, charge.amount, charged, now)
  end
  entry.parts[i] = { unit = charge.unit, release = charge.release, held = held, charged = charged, mark = mark,
    meter = charge.key }
  percents[i] = text(warn(meter, charge))
  change_meter(charge.key, meter)
  list[i] = (write_meter(meter, now))
end
if holds then open = open + 1 end
change_entry(entry)
finish()
if KEYS[4] ~= KEYS[3] then redis.call('SET', KEYS[4], id) end
return { 'OK', text(sequence), list, percents, holds and '' or write_entry(entry) }
