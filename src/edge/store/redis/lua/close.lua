-- Settles or gives back. KEYS: the fourth is the reservation. ARGV: the second is the state it is to be in, and what was
-- used: money, tokens, input and output tokens, requests, as doubles or (a small letter) decimals; -1 is not known, -2
-- beyond what can be counted. Where the state is `U`, it is given back only if nobody was told of it.
local used, state = {}
do
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
  if part.unit == 'u' and used.u == -1 then return answer('COST') end
end
local charged = {}
for i, part in ipairs(entry.parts) do
  local amount = used[part.unit]
  if state == 'R' or part.unit == 'p' then
    charged[i] = 0
  elseif part.unit == 'q' and amount == 0 then
    charged[i] = part.held
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
