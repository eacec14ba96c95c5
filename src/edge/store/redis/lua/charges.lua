-- What is to be charged. KEYS: from the fifth on, the meters. ARGV: six, then twelve for each meter.
local charges, FIRST, EACH = {}, 13, 12
for i = 1, #KEYS - 4 do
  local from = FIRST + (i - 1) * EACH
  charges[i] = { key = KEYS[4 + i], kind = ARGV[from], unit = ARGV[from + 1], release = ARGV[from + 2],
    enforced = ARGV[from + 3] == '1', amount = parse(ARGV[from + 4]), cap = parse(ARGV[from + 5]),
    warn_at = ARGV[from + 6], ARGV[from + 7], ARGV[from + 8], ARGV[from + 9], ARGV[from + 10], ARGV[from + 11] }
end

local function load_charged()
  local keys = {}
  for i, charge in ipairs(charges) do keys[i] = charge.key end
  if #keys > 0 then load_meters(keys) end
end
