-- The way of nearly every hold, in few calls and no function of the rest of this script, which is what a script costs:
-- nothing is due, nobody is to be told, every number is exact as a double, each charge is on another meter and none of
-- them rolls. Anything else has changed nothing and goes the long way. What is answered is the same: where the meters
-- stand after a hold (H), or as they are where one has no room (S).
--
-- Holds that came together are asked together, one after the other: KEYS have the reservation, the meters and perhaps the
-- name and the counter of each, ARGV three texts of each. Of several, those that have to go the long way are answered an empty text.
local function quickly()
  local call, byte, read, write = redis.call, string.byte, struct.unpack, struct.pack
  local epoch, seen, now = read('<sdd', ARGV[1])
  local found = call('MGET', unpack(KEYS, 3))
  if not found[1] then return {} end
  local here, before, open, first_due, lost = read('<sddds', found[1])
  if here ~= epoch or before < seen or lost ~= '' or first_due <= now then return {} end

  local EXACT, sequence = 9007199254740992, before + 1
  local held, short = 'H' .. write('<d', sequence), 'S' .. write('<d', before)
  local answers, touched, states, first = {}, {}, {}, 4
  local writes, dues, new = { 'MSET', KEYS[3], '' }, { 'ZADD', KEYS[1] }, { 'ZADD', KEYS[2] }
  for from = 2, #ARGV, 3 do
    local count, most_open, flags, most_of, place = read('<HdBd', ARGV[from])
    -- Flags: 1 where the quick way may be tried, 2 where there is a name, 4 where a limit has percents to tell, 8 where the
    -- open reservations of the principal are counted.
    local key, name, tells = KEYS[first], flags % 4 >= 2 and first + count + 1, flags % 8 >= 4
    local counter = flags >= 8 and first + count + (name and 2 or 1)
    local counted = counter and tonumber(states[KEYS[counter]] or found[counter - 2] or 0)
    local quick = flags % 2 == 1 and open < most_open and not found[first - 2] and not states[key]
    if counter and counted >= most_of then quick = false end
    if name and (found[name - 2] or states[KEYS[name]]) then quick = false end
    local answer, marks, fits, i = { held }, {}, true, 0
    while quick and i < count do
      i = i + 1
      local kind, _, _, enforced, amount, cap, a, b, _, percent, flag, warn_at
      kind, _, _, enforced, amount, cap, a, b, _, percent, flag, warn_at, place =
        read('<c1c1BBdddddBBs', ARGV[from], place)
      local state, mark, taken = states[KEYS[first + i]] or found[first + i - 2], 0
      -- A limit that refuses has to have room for the least there can be, also where nothing is held.
      local least = enforced == 1 and amount == 0 and 1 or 0
      if state and byte(state) ~= byte(kind) then
        quick = false
      elseif kind == 'B' then
        local used, holding, carried, warned, carries = 0, 0, 0, 0, percent > 0 and 1 or 0
        if state then _, a, b, used, holding, carried, warned = read('<c1dddddB', state) end
        holding, cap, mark = holding + amount, cap + carried, a
        taken = used + holding
        if now >= b then quick = false end
        for each = 1, #warn_at do
          local told = byte(warn_at, each)
          -- Where it is near, the long way says it exactly.
          if taken * 100 >= told * cap * 0.999999 then
            if told > warned then quick = false end
            break
          end
        end
        state = write('<c1dddddBB', kind, a, b, used, holding, carried, warned, carries)
      elseif kind == 'R' then
        local level, holding, at, since, flow, every = 0, 0, now, now, a, b
        if state then
          _, level, holding, at, since, flow, every = read('<c1dddddd', state)
          if flow ~= a or every ~= b then quick = false end
          if now >= at then
            level, at = level - flow * (now - at), now
            if level < 0 then level = 0 end
          end
        end
        taken, cap, least = level + (holding + amount) * every, cap * every, least * every
        if flag == 1 then level = level + amount * every else holding = holding + amount end
        state, mark = write('<c1ddddddB', kind, level, holding, at, since, flow, every, flag), at
      elseif kind == 'P' then
        taken = amount
        if state then
          _, taken = read('<c1d', state)
          taken = taken + amount
        end
        state = write('<c1d', kind, taken)
      else
        quick = false
      end
      if quick and taken + least >= EXACT then quick = false end
      if quick and enforced == 1 and taken + least > cap then fits = false end
      answer[1 + i], marks[2 * i - 1], marks[2 * i] = state, 0, mark
    end

    if quick and fits then
      local _, _, due = read('<c1sd', ARGV[from + 1])
      local id = string.sub(key, #KEYS[3] - 7)
      for at = 1, count do
        local meter = KEYS[first + at]
        if not states[meter] then
          touched[#touched + 1] = meter
          if not found[first + at - 2] then
            new[#new + 1] = now + 86400000
            new[#new + 1] = meter
          end
        end
        states[meter] = answer[1 + at]
      end
      states[key] = true
      writes[#writes + 1] = key
      writes[#writes + 1] = ARGV[from + 1] .. write('<' .. string.rep('d', 2 * count), unpack(marks)) .. ARGV[from + 2]
      if name then
        states[KEYS[name]] = true
        writes[#writes + 1] = KEYS[name]
        writes[#writes + 1] = id
      end
      if counter then
        local counts = KEYS[counter]
        if not states[counts] then touched[#touched + 1] = counts end
        states[counts] = string.format('%.0f', counted + 1)
      end
      dues[#dues + 1] = due
      dues[#dues + 1] = id
      open = open + 1
      if due < first_due then first_due = due end
    elseif quick and not tells then
      answer = { short }
      for at = 1, count do answer[1 + at] = states[KEYS[first + at]] or found[first + at - 2] or '-' end
    else
      answer = nil
    end
    answers[#answers + 1] = answer and table.concat(answer) or ''
    first = first + 1 + count + (name and 1 or 0) + (counter and 1 or 0)
  end

  if #dues > 2 then
    for _, meter in ipairs(touched) do
      writes[#writes + 1] = meter
      writes[#writes + 1] = states[meter]
    end
    writes[3] = write('<sddds', here, sequence, open, first_due, '')
    call(unpack(dues))
    if #new > 2 then call(unpack(new)) end
    call(unpack(writes))
  end
  return answers
end

local answers = quickly()
if #ARGV > 4 then return answers end
if answers[1] and answers[1] ~= '' then return answers[1] end
