-- Meters, moved exactly as `src/meter` moves them. In a value: a letter for the kind, then its numbers; as doubles where
-- each is exact so, else (a small letter) its amounts as decimals.
local SLICES, DAY = 64, 86400000
local FORMS = { B = '<c1dddddBB', b = '<c1ddsssBB', R = '<c1ddddddB', r = '<c1ssddsdB', P = '<c1d', p = '<c1s',
  W = '<c1dddBdH', w = '<c1ddsBdH' }

local function number(field)
  return type(field) == 'string' and parse(field) or field
end

-- How a kind is written: with texts where one of `amounts` is beyond what a double holds.
local function form(kind, amounts)
  for _, amount in ipairs(amounts) do
    if type(amount) == 'table' then return string.lower(kind), text end
  end
  return kind, function(amount) return amount end
end

local function read_meter(state)
  local letter = string.sub(state, 1, 1)
  local kind = string.upper(letter)
  local _, a, b, c, d, e, f, g = struct.unpack(FORMS[letter], state)
  if kind == 'B' then
    return { kind = kind, start = a, stop = b, used = number(c), held = number(d), carried = number(e), warned = f,
      carries = g }
  elseif kind == 'R' then
    return { kind = kind, level = number(a), held = number(b), at = c, since = d, amount = number(e), every = f,
      certain = g }
  elseif kind == 'P' then
    return { kind = kind, held = number(a) }
  end
  local numbers, amounts, at = {}, {}, g
  for i = 1, f do
    numbers[i], amounts[i], at = struct.unpack(letter == 'W' and '<dd' or '<ds', state, at)
    amounts[i] = number(amounts[i])
  end
  return { kind = kind, slice = a, current = b, held = number(c), warned = d, warned_in = e, numbers = numbers,
    amounts = amounts }
end

local function write_meter(meter)
  local kind = meter.kind
  if kind == 'B' then
    local letter, as = form(kind, { meter.used, meter.held, meter.carried })
    return struct.pack(FORMS[letter], letter, meter.start, meter.stop, as(meter.used), as(meter.held),
      as(meter.carried), meter.warned, meter.carries)
  elseif kind == 'R' then
    local letter, as = form(kind, { meter.level, meter.held, meter.amount })
    return struct.pack(FORMS[letter], letter, as(meter.level), as(meter.held), meter.at, meter.since,
      as(meter.amount), meter.every, meter.certain)
  elseif kind == 'P' then
    local letter, as = form(kind, { meter.held })
    return struct.pack(FORMS[letter], letter, as(meter.held))
  end
  local letter, as = form(kind, { meter.held, unpack(meter.amounts) })
  local parts = { struct.pack(FORMS[letter], letter, meter.slice, meter.current, as(meter.held), meter.warned,
    meter.warned_in, #meter.numbers) }
  for i, slice in ipairs(meter.numbers) do
    parts[i + 1] = struct.pack(letter == 'W' and '<dd' or '<ds', slice, as(meter.amounts[i]))
  end
  return table.concat(parts)
end

-- Whether forgetting it changes nothing, now or later.
local function is_blank(meter, now)
  if meter.kind == 'B' then return meter.carries == 0 and meter.stop + DAY <= now end
  if meter.held ~= 0 then return false end
  if meter.kind == 'W' then
    local after = (meter.current + SLICES + 1) * meter.slice
    return after <= now and (meter.current + 1) * meter.slice + DAY <= now
  elseif meter.kind == 'R' then
    return now - meter.at >= DAY and le(meter.level, times(meter.amount, now - meter.at))
  end
  return true
end

local function new_meter(charge, now)
  if charge.kind == 'B' then
    return { kind = 'B', start = charge.start, stop = charge.stop, used = 0, held = 0, carried = 0, warned = 0,
      carries = charge.carry > 0 and 1 or 0 }
  elseif charge.kind == 'W' then
    return { kind = 'W', slice = charge.slice, current = floor(now / charge.slice), held = 0, warned = 0,
      warned_in = -9223372036854775808, numbers = {}, amounts = {} }
  elseif charge.kind == 'R' then
    return { kind = 'R', level = 0, at = now, since = now, amount = charge.flow, every = charge.every, held = 0,
      certain = charge.certain }
  end
  return { kind = 'P', held = 0 }
end

-- Used and held of a budget, or of places.
local function taken(meter)
  if meter.kind == 'B' then return add(meter.used, meter.held) end
  local sum = meter.held
  for _, amount in ipairs(meter.amounts or {}) do sum = add(sum, amount) end
  return sum
end

local function roll(meter, now)
  meter.current = math.max(meter.current, floor(now / meter.slice))
  while meter.numbers[1] and meter.numbers[1] + SLICES < meter.current do
    table.remove(meter.numbers, 1)
    table.remove(meter.amounts, 1)
  end
end

local function flow(meter, now)
  local elapsed = now - meter.at
  if elapsed >= 0 then
    meter.level = less(meter.level, times(meter.amount, elapsed))
    meter.at = now
  end
end

-- Opens the window of a charge. Time in a meter never runs backwards, whatever clock a node has.
local function open_window(meter, charge)
  local carried = 0
  if charge.carry > 0 and not charge.total then
    local gone = charge.start <= meter.stop and less(at_most(taken(meter), MOST), meter.carried) or 0
    carried = divide(times(less(charge.before, gone), charge.carry), 100)
  end
  meter.start = math.max(meter.stop, charge.start)
  meter.stop, meter.used, meter.held, meter.carried, meter.warned = charge.stop, 0, 0, carried, 0
end

local function adopt(meter, charge, now)
  local amount, every = charge.flow, charge.every
  local changed = every ~= meter.every or not (le(amount, meter.amount) and le(meter.amount, amount))
  if changed then
    local level, rest = divide(times(meter.level, every), meter.every)
    meter.level, meter.every, meter.amount = rest and add(level, 1) or level, every, amount
  end
  flow(meter, now)
  if changed then meter.since = meter.at end
end

-- Brings the meter of a charge to `now`.
local function advance(meter, charge, now)
  if not meter or meter.kind ~= charge.kind then return new_meter(charge, now) end
  if meter.kind == 'B' then
    if now >= meter.stop then open_window(meter, charge) end
    meter.carries = charge.carry > 0 and 1 or 0
  elseif meter.kind == 'W' then
    if meter.slice ~= charge.slice then return new_meter(charge, now) end
    roll(meter, now)
  elseif meter.kind == 'R' then
    adopt(meter, charge, now)
  end
  return meter
end

-- Whether so much more can be counted.
local function has_space(meter, amount)
  if meter.kind == 'R' then
    return le(add(meter.level, times(add(meter.held, amount), meter.every)), times(MOST, meter.every))
  end
  return le(add(taken(meter), amount), MOST)
end

local function cap_of(meter, charge)
  return meter.kind == 'B' and at_most(add(charge.cap, meter.carried), MOST) or charge.cap
end

-- Whether `amount`, with what earlier charges take of the same meter, has room.
local function fits(meter, charge, amount)
  if not le(amount, MOST) then return false end
  if not charge.enforced then return has_space(meter, amount) end
  if meter.kind == 'R' then
    return le(add(meter.level, times(add(meter.held, amount), meter.every)), times(charge.cap, meter.every))
  end
  return le(add(taken(meter), amount), cap_of(meter, charge))
end

-- Holds, and says the mark that `close` wants back.
local function hold(meter, amount)
  if meter.kind == 'R' then
    if meter.certain == 1 then
      meter.level = add(meter.level, times(amount, meter.every))
    else
      meter.held = add(meter.held, amount)
    end
    return meter.at
  end
  meter.held = add(meter.held, amount)
  if meter.kind == 'B' then return meter.start end
  return meter.kind == 'W' and meter.current or 0
end

-- Puts `after` in the place of `before` in the slice of that number.
local function replace(meter, number, before, after)
  local numbers, amounts = meter.numbers, meter.amounts
  local place = #numbers
  while place > 0 and numbers[place] > number do place = place - 1 end
  if place > 0 and numbers[place] == number then
    amounts[place] = at_most(add(less(amounts[place], before), after), MOST)
    if amounts[place] == 0 then
      table.remove(numbers, place)
      table.remove(amounts, place)
    end
  elseif after ~= 0 then
    table.insert(numbers, place + 1, number)
    table.insert(amounts, place + 1, after)
  end
end

-- Charges `after` instead of `before`, which came into a rate at `mark`.
local function correct(meter, mark, before, after)
  if le(before, after) then
    meter.level = add(meter.level, times(less(after, before), meter.every))
    return
  end
  local elapsed = meter.at - mark
  if elapsed >= 0 and mark >= meter.since then
    local flown, charged = times(meter.amount, elapsed), times(after, meter.every)
    local kept = le(flown, charged) and charged or flown
    meter.level = less(meter.level, less(times(before, meter.every), kept))
  end
end

-- Gives back what was held under `mark`, charges `charged` instead, and says the mark of the charge.
local function close(meter, mark, held, charged, now)
  if meter.kind == 'B' then
    if meter.start == mark then
      meter.held, meter.used = less(meter.held, held), at_most(add(meter.used, charged), MOST)
    end
    return mark
  elseif meter.kind == 'W' then
    roll(meter, now)
    meter.held = less(meter.held, held)
    replace(meter, meter.current, 0, charged)
    return meter.current
  elseif meter.kind == 'R' then
    flow(meter, now)
    if meter.certain == 1 then
      correct(meter, mark, held, charged)
      return mark
    end
    meter.held = less(meter.held, held)
    meter.level = add(meter.level, times(charged, meter.every))
    return meter.at
  end
  meter.held = less(meter.held, held)
  return mark
end

-- Charges `after` where `before` was charged under `mark`.
local function recharge(meter, mark, before, after, now)
  if meter.kind == 'B' then
    if meter.start == mark then meter.used = at_most(add(less(meter.used, before), after), MOST) end
  elseif meter.kind == 'W' then
    roll(meter, now)
    if mark + SLICES >= meter.current then
      replace(meter, mark, before, after)
    else
      replace(meter, meter.current, 0, less(after, before))
    end
  elseif meter.kind == 'R' then
    flow(meter, now)
    correct(meter, mark, before, after)
  end
end

-- Whether `after` can be counted in the place of `before`, which counts under `mark`.
local function can_count(meter, mark, before, after)
  if meter.kind == 'R' then
    local most = times(add(MOST, before), meter.every)
    return le(add(meter.level, times(add(meter.held, after), meter.every)), most)
  end
  if meter.kind == 'B' and meter.start ~= mark then return true end
  return le(add(less(at_most(taken(meter), MOST), before), after), MOST)
end

-- The highest percent that is reached and was not told in this period, or 0; from now on it was.
local function warn(meter, charge)
  if charge.warn_at == '' or (meter.kind ~= 'B' and meter.kind ~= 'W') then return 0 end
  local part, whole = times(at_most(taken(meter), MOST), 100), cap_of(meter, charge)
  for i = 1, #charge.warn_at do
    local percent = string.byte(charge.warn_at, i)
    if le(times(whole, percent), part) then
      if meter.kind == 'B' then
        if percent <= meter.warned then return 0 end
      elseif percent <= meter.warned and meter.current <= meter.warned_in + SLICES then
        return 0
      end
      meter.warned, meter.warned_in = percent, meter.current
      return percent
    end
  end
  return 0
end
