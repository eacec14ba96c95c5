-- Settles or gives back. KEYS: the fourth is the reservation. ARGV: the second is the state it is to be in, and what was
-- used: money, tokens, input and output tokens, requests, as doubles or (a small letter) decimals; -1 is not known, -2
-- beyond what can be counted. Where the state is `U`, it is given back only if nobody was told of it. With a `P` in front
-- nobody knows what was used, and it says what each part is charged instead.
local used, each, state = {}, nil
if string.upper(string.sub(ARGV[2], 1, 1)) == 'P' then
  local form = string.sub(ARGV[2], 1, 1) == 'P' and '<d' or '<s'
  local _, at, count, place = struct.unpack('<c1sH', ARGV[2])
  state, each = at, {}
  for i = 1, count do
    local amount
    amount, place = struct.unpack(form, ARGV[2], place)
    each[i] = number(amount)
  end
else
  local form = string.sub(ARGV[2], 1, 1) == 'U' and '<c1sddddd' or '<c1ssssss'
  local _, at, usd, tokens, input, output, requests = struct.unpack(form, ARGV[2])
  state = at
  used = { u = number(usd), t = number(tokens), i = number(input), o = number(output), q = number(requests) }
end
local entry = read_entry(KEYS[4])

local function answer(code, ...)
  finish()
  return { code, text(sequence), ... }
end

if not entry then return answer('UNKNOWN') end
if state == 'U' then
  if redis.call('EXISTS', PREFIX .. 'a:' .. id_of(entry)) == 1 then return answer('OK', told(entry)) end
  state = 'R'
end
if entry.state == state then return answer('OK', told(entry)) end
if entry.state ~= 'O' and entry.state ~= 'X' then return answer('CLOSED', entry.state) end

-- What was left out is told before what cannot be counted, in whatever order the limits stand.
for _, part in ipairs(state == 'R' and {} or entry.parts) do
  if not each and part.unit == 'u' and used.u == -1 then return answer('COST') end
end
local charged = {}
for i, part in ipairs(entry.parts) do
  local amount = each and (each[i] or -2) or used[part.unit]
  if state == 'R' or part.unit == 'p' then
    charged[i] = 0
  elseif amount == -2 then
    return answer('OVERFLOW')
  else
    charged[i] = amount
  end
end

load_parts(entry)
local before, after = {}, {}
for i, part in ipairs(entry.parts) do
  local counted = entry.state == 'O' and part.held or part.charged
  before[part.meter] = add(before[part.meter] or 0, counted)
  after[part.meter] = add(after[part.meter] or 0, charged[i])
end
for _, part in ipairs(state == 'R' and {} or entry.parts) do
  local meter, most = get_meter(part.meter), le(before[part.meter], MOST) and le(after[part.meter], MOST)
  if meter and not (most and can_count(meter, part.mark, before[part.meter], after[part.meter])) then
    return answer('OVERFLOW')
  end
end

end_entry(entry, state, charged)
return answer('OK', told(entry))
