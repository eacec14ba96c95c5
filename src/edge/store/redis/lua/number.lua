-- Whole numbers without an end. A plain number is exact below 2^53; from there on a number is a list of limbs of seven
-- digits, the lowest first.
local EXACT, BASE, floor = 9007199254740992, 1e7, math.floor

local function limbs(n)
  if type(n) == 'table' then return n end
  local list, i = {}, 0
  repeat
    i = i + 1
    list[i] = n % BASE
    n = (n - list[i]) / BASE
  until n == 0
  return list
end

-- INVARIANT: only what is 2^53 or more is a list, and its highest limb is not zero.
local function plain(list)
  local size = #list
  while size > 1 and list[size] == 0 do
    list[size] = nil
    size = size - 1
  end
  if size > 3 or (size == 3 and list[3] > 90) then return list end
  local n = list[1] + (list[2] or 0) * BASE + (list[3] or 0) * 1e14
  return n < EXACT and n or list
end

local function parse(text)
  if #text <= 15 then return tonumber(text) end
  local list, i = {}, 0
  for last = #text, 1, -7 do
    i = i + 1
    list[i] = tonumber(string.sub(text, math.max(last - 6, 1), last))
  end
  return plain(list)
end

local function text(n)
  if type(n) == 'number' then return string.format('%.0f', n) end
  local parts = { string.format('%.0f', n[#n]) }
  for i = #n - 1, 1, -1 do parts[#parts + 1] = string.format('%07.0f', n[i]) end
  return table.concat(parts)
end

local function le(a, b)
  local big_a, big_b = type(a) == 'table', type(b) == 'table'
  if not big_a and not big_b then return a <= b end
  if big_a ~= big_b then return big_b end
  if #a ~= #b then return #a < #b end
  for i = #a, 1, -1 do
    if a[i] ~= b[i] then return a[i] < b[i] end
  end
  return true
end

local function add(a, b)
  if type(a) == 'number' and type(b) == 'number' then
    local sum = a + b
    if sum < EXACT then return sum end
  end
  a, b = limbs(a), limbs(b)
  local list, carry = {}, 0
  for i = 1, math.max(#a, #b) do
    local limb = (a[i] or 0) + (b[i] or 0) + carry
    carry = limb >= BASE and 1 or 0
    list[i] = limb - carry * BASE
  end
  if carry > 0 then list[#list + 1] = carry end
  return plain(list)
end

-- What is left of `a`: never less than nothing.
local function less(a, b)
  if type(a) == 'number' and type(b) == 'number' then return a > b and a - b or 0 end
  if le(a, b) then return 0 end
  a, b = limbs(a), limbs(b)
  local list, borrow = {}, 0
  for i = 1, #a do
    local limb = a[i] - (b[i] or 0) - borrow
    borrow = limb < 0 and 1 or 0
    list[i] = limb + borrow * BASE
  end
  return plain(list)
end

local function times(a, b)
  if type(a) == 'number' and type(b) == 'number' then
    local product = a * b
    if product < EXACT then return product end
  end
  a, b = limbs(a), limbs(b)
  local list = {}
  for i = 1, #a + #b do list[i] = 0 end
  for i = 1, #a do
    local carry = 0
    for j = 1, #b do
      local limb = list[i + j - 1] + a[i] * b[j] + carry
      carry = floor(limb / BASE)
      list[i + j - 1] = limb - carry * BASE
    end
    list[i + #b] = carry
  end
  return plain(list)
end

-- The quotient and whether something is left; the divisor is plain and below 9e14.
local function divide(a, divisor)
  if type(a) == 'number' then
    local rest = a % divisor
    return (a - rest) / divisor, rest > 0
  end
  local digits, rest = {}, 0
  for digit in string.gmatch(text(a), '%d') do
    local part = rest * 10 + tonumber(digit)
    rest = part % divisor
    digits[#digits + 1] = string.format('%.0f', (part - rest) / divisor)
  end
  local quotient = string.gsub(table.concat(digits), '^0+', '')
  return parse(quotient == '' and '0' or quotient), rest > 0
end

-- The most that can be counted.
local MOST = parse('9223372036854775807')

local function at_most(n, most)
  return le(n, most) and n or most
end
