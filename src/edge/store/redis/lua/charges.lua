-- What is to be charged. KEYS: from the fifth on, the meters. ARGV: the second says how many, how many reservations may
-- be open, flags and how many of the principal may be open, then each: kind, unit, whether it is given back at expiry and whether
-- it refuses, amount, cap, three numbers and two flags of its measure, and percents to tell, the highest first. A small
-- letter for the kind: amounts are decimals.
local charges = {}
local count, most_open, flags, most_of, place = struct.unpack('<HdBd', ARGV[2])
for i = 1, count do
  local letter = string.sub(ARGV[2], place, place)
  local kind, unit, release, enforced, amount, cap, a, b, c, percent, flag, warn_at
  local exact = letter == string.upper(letter)
  kind, unit, release, enforced, amount, cap, a, b, c, percent, flag, warn_at, place =
    struct.unpack(exact and '<c1c1BBdddddBBs' or '<c1c1BBsssssBBs', ARGV[2], place)
  charges[i] = { key = KEYS[4 + i], kind = string.upper(kind), unit = unit, release = release, enforced = enforced == 1,
    amount = number(amount), cap = number(cap), warn_at = warn_at,
    start = tonumber(a), stop = tonumber(b), before = number(c), carry = percent, total = flag == 1,
    slice = tonumber(a), flow = number(a), every = tonumber(b), certain = flag }
end

local function load_charged()
  local keys = {}
  for i, charge in ipairs(charges) do keys[i] = charge.key end
  if #keys > 0 then load_meters(keys) end
end
