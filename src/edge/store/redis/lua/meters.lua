-- Meters, moved exactly as `src/meter` moves them. As texts: a letter for the kind, then its numbers.
local SLICES, DAY = 64, 86400000

local function read_meter(state)
  local kind = string.sub(state, 1, 1)
  if kind == 'B' then
    local start, stop, used, held, carried, warned, carries =
      string.match(state, '^B (%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d)$')
    return { kind = kind, start = start, stop = stop, used = parse(used), held = parse(held),
      carried = parse(carried), warned = tonumber(warned), carries = carries }
  elseif kind == 'W' then
    local slice, current, held, warned, warned_in, rest =
      string.match(state, '^W (%d+) (%S+) (%d+) (%d+) (%S+)(.*)$')
    local numbers, amounts = {}, {}
    for number, amount in string.gmatch(rest, ' ([-%d]+):(%d+)') do
      numbers[#numbers + 1] = tonumber(number)
      amounts[#amounts + 1] = parse(amount)
    end
    return { kind = kind, slice = tonumber(slice), current = tonumber(current), held = parse(held),
      warned = tonumber(warned), warned_in = tonumber(warned_in), numbers = numbers, amounts = amounts }
  elseif kind == 'R' then
    local level, at, since, amount, every, held, certain =
      string.match(state, '^R (%d+) (%S+) (%S+) (%d+) (%d+) (%d+) (%d)$')
    return { kind = kind, level = parse(level), at = tonumber(at), since = tonumber(since), amount = parse(amount),
      every = tonumber(every), held = parse(held), certain = certain }
  end
  return { kind = kind, held = parse(string.match(state, '^P (%d+)$')) }
end

-- As a text, and for how long it has to be kept; for good where nothing is said.
local function write_meter(meter, now)
  if meter.kind == 'B' then
    local keep = meter.carries == '0' and meter.stop ~= '-' and tonumber(meter.stop) - now
    return string.format('B %s %s %s %s %s %d %s', meter.start, meter.stop, text(meter.used), text(meter.held),
      text(meter.carried), meter.warned, meter.carries), keep
  elseif meter.kind == 'W' then
    local parts = { string.format('W %.0f %.0f %s %d %.0f', meter.slice, meter.current, text(meter.held),
      meter.warned, meter.warned_in) }
    for i = 1, #meter.numbers do
      parts[i + 1] = string.format('%.0f:%s', meter.numbers[i], text(meter.amounts[i]))
    end
    return table.concat(parts, ' '), meter.held == 0 and (SLICES + 2) * meter.slice
  elseif meter.kind == 'R' then
    local keep = meter.held == 0 and add((divide(meter.level, math.min(tonumber(text(meter.amount)), 8e14))), 1)
    return string.format('R %s %.0f %.0f %s %.0f %s %s', text(meter.level), meter.at, meter.since, text(meter.amount),
      meter.every, text(meter.held), meter.certain), keep
  end
  return 'P ' .. text(meter.held), meter.held == 0 and 0
end

local function new_meter(charge, now)
  if charge.kind == 'B' then
    return { kind = 'B', start = charge[1], stop = charge[2], used = 0, held = 0, carried = 0, warned = 0,
      carries = charge[4] == '0' and '0' or '1' }
  elseif charge.kind == 'W' then
    local slice = tonumber(charge[1])
    return { kind = 'W', slice = slice, current = floor(now / slice), held = 0, warned = 0,
      warned_in = -9223372036854775808, numbers = {}, amounts = {} }
  elseif charge.kind == 'R' then
    return { kind = 'R', level = 0, at = now, since = now, amount = parse(charge[1]), every = tonumber(charge[2]),
      held = 0, certain = charge[3] }
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
  local stop, percent = tonumber(meter.stop), tonumber(charge[4])
  local carried = 0
  if percent > 0 and charge[5] == '0' then
    local gone = tonumber(charge[1]) <= stop and less(at_most(taken(meter), MOST), meter.carried) or 0
    carried = divide(times(less(parse(charge[3]), gone), percent), 100)
  end
  meter.start = stop > tonumber(charge[1]) and meter.stop or charge[1]
  meter.stop, meter.used, meter.held, meter.carried, meter.warned = charge[2], 0, 0, carried, 0
end

local function adopt(meter, charge, now)
  local amount, every = parse(charge[1]), tonumber(charge[2])
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
    if meter.stop ~= '-' and now >= tonumber(meter.stop) then open_window(meter, charge) end
    meter.carries = charge[4] == '0' and '0' or '1'
  elseif meter.kind == 'W' then
    if meter.slice ~= tonumber(charge[1]) then return new_meter(charge, now) end
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
    if meter.certain == '1' then
      meter.level = add(meter.level, times(amount, meter.every))
    else
      meter.held = add(meter.held, amount)
    end
    return text(0 + meter.at)
  end
  meter.held = add(meter.held, amount)
  if meter.kind == 'B' then return meter.start end
  return meter.kind == 'W' and text(meter.current) or '0'
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
    return text(meter.current)
  elseif meter.kind == 'R' then
    flow(meter, now)
    if meter.certain == '1' then
      correct(meter, tonumber(mark), held, charged)
      return mark
    end
    meter.held = less(meter.held, held)
    meter.level = add(meter.level, times(charged, meter.every))
    return text(meter.at)
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
    local number = tonumber(mark)
    if number + SLICES >= meter.current then
      replace(meter, number, before, after)
    else
      replace(meter, meter.current, 0, less(after, before))
    end
  elseif meter.kind == 'R' then
    flow(meter, now)
    correct(meter, tonumber(mark), before, after)
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
  for percent in string.gmatch(charge.warn_at, '%d+') do
    percent = tonumber(percent)
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
