-- Settles or gives back. KEYS: the third is the reservation. ARGV: from the sixth on, the state it is to be in, then
-- what was used: money, tokens, input and output tokens, requests; `-` is not known, `!` beyond what can be counted.
-- Where the state is `U`, it is given back only if nobody was told of it.
local state = ARGV[6]
local used = { u = ARGV[7], t = ARGV[8], i = ARGV[9], o = ARGV[10], q = ARGV[11] }
local entry = read_entry(KEYS[3])

local function answer(code, ...)
  finish()
  return { code, text(sequence), ... }
end

if not entry then return answer('UNKNOWN') end
if state == 'U' then
  local id = string.sub(KEYS[3], #PREFIX + 3)
  if redis.call('EXISTS', PREFIX .. 'a:' .. id) == 1 then return answer('OK', told(entry)) end
  state = 'R'
end
if entry.state == state then return answer('OK', told(entry)) end
if entry.state ~= 'O' and entry.state ~= 'X' then return answer('CLOSED', entry.state) end

local charged = {}
for i, part in ipairs(entry.parts) do
  local amount = used[part.unit]
  if state == 'R' or part.unit == 'p' then
    charged[i] = 0
  elseif part.unit == 'q' and amount == '0' then
    charged[i] = part.held
  elseif amount == '-' then
    return answer('COST')
  elseif amount == '!' then
    return answer('OVERFLOW')
  else
    charged[i] = parse(amount)
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
