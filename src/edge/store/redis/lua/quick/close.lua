-- The way of nearly every settle and release, as that of a hold: what is closed was held so, and is still open.
local function quickly()
  local call, byte, read, write = redis.call, string.byte, struct.unpack, struct.pack
  local epoch, seen, now = read('<sdd', ARGV[1])
  local found = call('MGET', KEYS[3], KEYS[4])
  local generation, entry = found[1], found[2]
  if not generation or not entry or byte(entry) ~= 69 or byte(ARGV[2]) ~= 85 then return end
  local here, sequence, open, first_due, lost = read('<sddds', generation)
  if here ~= epoch or sequence < seen or lost ~= '' or first_due <= now then return end
  local _, was, _, created, count, quick, place = read('<c1sddHB', entry)
  if was ~= 'O' or quick == 0 then return end
  local _, state, usd, tokens, input, output, requests = read('<c1sddddd', ARGV[2])
  if state == 'U' then return end
  local used = { u = usd, t = tokens, i = input, o = output, q = requests, p = 0 }

  local EXACT = 9007199254740992
  local numbers = { read('<' .. string.rep('d', 2 * count), entry, place) }
  local fixed = numbers[2 * count + 1]
  local keys, holds, charges = { 'MGET' }, {}, {}
  place = fixed
  for i = 1, count do
    local unit, held, charged
    unit, _, held, keys[1 + i], place = read('<c1Bds', entry, place)
    charged = state == 'R' and 0 or used[unit]
    if charged < 0 then return end
    holds[i], charges[i] = held, charged
  end
  -- Behind the ids of the limits comes the principal, whose open reservations are counted.
  local texts = { read('<' .. string.rep('s', count + 3), entry, place) }
  local name, counter = texts[2], string.sub(KEYS[3], 1, -11) .. 'o:' .. texts[count + 3]
  local counted = tonumber(call('GET', counter) or 0)
  local meters = count > 0 and call(unpack(keys)) or {}
  local writes = { 'MSET', KEYS[3], '', KEYS[4], '' }
  for i = 1, count do
    local meter, held, charged, mark = meters[i], holds[i], charges[i], numbers[2 * i]
    local kind = meter and byte(meter)
    if kind == 66 then
      local _, start, stop, had, holding, carried, warned, carries = read('<c1dddddBB', meter)
      if start == mark then
        holding, had = holding > held and holding - held or 0, had + charged
        if had + holding >= EXACT then return end
        meter = write('<c1dddddBB', 'B', start, stop, had, holding, carried, warned, carries)
      end
    elseif kind == 82 then
      local _, level, holding, at, since, flow, every, certain = read('<c1ddddddB', meter)
      local before, after = held * every, charged * every
      if before >= EXACT or after >= EXACT then return end
      if now >= at then
        level, at = level - flow * (now - at), now
        if level < 0 then level = 0 end
      end
      if certain ~= 1 then
        holding, level, mark = holding > held and holding - held or 0, level + after, at
      elseif after >= before then
        level = level + (after - before)
      elseif at >= mark and mark >= since then
        -- Of what has flown out since, nothing is given back.
        local kept = flow * (at - mark)
        if kept < after then kept = after end
        if before > kept then level = level - (before - kept) end
        if level < 0 then level = 0 end
      end
      if level + holding * every >= EXACT then return end
      meter = write('<c1ddddddB', 'R', level, holding, at, since, flow, every, certain)
    elseif kind == 80 then
      local _, holding = read('<c1d', meter)
      meter = write('<c1d', 'P', holding > held and holding - held or 0)
    elseif meter then
      return
    end
    numbers[2 * i - 1], numbers[2 * i] = charged, mark
    -- What is not there any longer is not made again.
    if meter then
      writes[#writes + 1] = keys[1 + i]
      writes[#writes + 1] = meter
    end
  end

  local id, due = string.sub(KEYS[4], #KEYS[3] - 7), now + 86400000
  numbers[2 * count + 1] = nil
  sequence = sequence + 1
  writes[3] = write('<sddds', here, sequence, open > 0 and open - 1 or 0, first_due, '')
  entry = write('<c1sddHB', 'E', state, due, created, count, 1)
    .. write('<' .. string.rep('d', 2 * count), unpack(numbers)) .. string.sub(entry, fixed)
  writes[5] = entry
  local answer = name ~= '' and call('GET', string.sub(KEYS[3], 1, -11) .. 'a:' .. id)
  if counted > 1 then
    writes[#writes + 1] = counter
    writes[#writes + 1] = string.format('%.0f', counted - 1)
  elseif counted == 1 then
    call('DEL', counter)
  end
  call('ZREM', KEYS[1], id)
  call('ZADD', KEYS[2], due, id)
  call(unpack(writes))
  return { 'OK', string.format('%.0f', sequence), id, entry, answer }
end

local answered = quickly()
if answered then return answered end
