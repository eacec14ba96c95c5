-- What every script begins and ends with. KEYS: due, later, generation. ARGV: the first has the epoch, the highest
-- sequence that the node saw, now, and how many may expire on the way. Nothing is written before `finish`, so that a
-- script that fails on its way has changed nothing.
--
-- `due` has the open reservations by when they expire, `later` the closed ones by when they are forgotten and the meters
-- by when it is looked at next whether they can be.
local DUE, LATER, GENERATION = KEYS[1], KEYS[2], KEYS[3]
local epoch, seen, now, most = struct.unpack('<sddH', ARGV[1])
local PREFIX = string.sub(GENERATION, 1, -11)
local here, sequence, open, first_due, lost = '', -1, 0, math.huge, ''
local generation = redis.call('GET', GENERATION)
if generation then here, sequence, open, first_due, lost = struct.unpack('<sddds', generation) end
if here ~= epoch or sequence < seen or lost ~= '' then
  local epochs = redis.call('GET', PREFIX .. 'epochs') or ''
  if lost == '' and has_all(epochs, here, sequence, epoch, seen) then return { 'EPOCH', text(sequence), here } end
  -- Every node is to know, also one that saw less.
  local is_same = string.match(here, '^%x+') == string.match(epoch, '^%x+')
  if is_same and lost == '' then
    redis.call('SET', GENERATION, struct.pack('<sddds', here, sequence, open, first_due, text(seen)))
  end
  return { 'LOST', text(math.max(sequence, 0)), is_same and here or '', lost ~= '' and lost or text(seen), here }
end

-- Meters by key: as a text as long as nobody has to know more, `false` where there is none.
local meters, changed_meters, new_meters, blank_meters = {}, {}, {}, {}
-- Reservations by key, and what becomes of them by id: open until, closed until, gone.
local entries, changed_entries, opened, closed, gone = {}, {}, {}, {}, {}
local dropped, put_off, is_stale = {}, {}, false
-- How many reservations of a principal are open, by the key of that counter.
local counters = {}

local function open_of(key)
  if not counters[key] then counters[key] = tonumber(redis.call('GET', key) or 0) end
  return counters[key]
end

local function count_open(key, more)
  counters[key] = math.max(open_of(key) + more, 0)
end

local function load_meters(keys)
  local missing = {}
  for _, key in ipairs(keys) do
    if meters[key] == nil then
      meters[key] = false
      missing[#missing + 1] = key
    end
  end
  if #missing > 0 then
    for i, state in ipairs(redis.call('MGET', unpack(missing))) do
      if state then meters[missing[i]] = state end
    end
  end
end

local function get_meter(key)
  local meter = meters[key]
  if type(meter) == 'string' then
    meter = read_meter(meter)
    meters[key] = meter
  end
  return meter
end

-- As a text; none where there is none.
local function meter_text(key)
  local meter = meters[key]
  if type(meter) == 'table' then return write_meter(meter) end
  return meter or ''
end

local function change_meter(key, meter)
  if not meters[key] then new_meters[key] = true end
  meters[key], changed_meters[key] = meter, true
end

-- A reservation: its state, when it is due and when it was made, how many parts it has and whether the quick way may
-- close it; of each part what was charged and its mark; of each its unit, whether it is given back at expiry, what was
-- held and its meter; the digest and the name that its client gave it; what only nodes read. With a small letter in front
-- amounts are decimals.
local function decode_entry(key, value)
  local letter, state, due, created, count, quick, at = struct.unpack('<c1sddHB', value)
  local entry = { key = key, state = state, due = due, created = created, quick = quick, parts = {} }
  local exact = letter == 'E'
  for i = 1, count do
    local charged, mark
    charged, mark, at = struct.unpack(exact and '<dd' or '<sd', value, at)
    entry.parts[i] = { charged = number(charged), mark = mark }
  end
  for _, part in ipairs(entry.parts) do
    local held
    part.unit, part.release, held, part.meter, at = struct.unpack(exact and '<c1Bds' or '<c1Bss', value, at)
    part.held = number(held)
  end
  entry.digest, entry.name, at = struct.unpack('<ss', value, at)
  entry.body = string.sub(value, at)
  return entry
end

local function encode_entry(entry)
  local amounts, parts = {}, {}
  for _, part in ipairs(entry.parts) do
    amounts[#amounts + 1] = part.held
    amounts[#amounts + 1] = part.charged
  end
  local letter, as = form('E', amounts)
  local exact, count = letter == 'E', #entry.parts
  for i, part in ipairs(entry.parts) do
    parts[i] = struct.pack(exact and '<dd' or '<sd', as(part.charged), part.mark)
    parts[count + i] =
      struct.pack(exact and '<c1Bds' or '<c1Bss', part.unit, part.release, as(part.held), part.meter)
  end
  return struct.pack('<c1sddHB', letter, entry.state, entry.due, entry.created, count, entry.quick)
    .. table.concat(parts) .. struct.pack('<ss', entry.digest, entry.name) .. entry.body
end

-- What is long over is not there, though it may lie there still.
local function read_entry(key)
  if entries[key] == nil then
    local value = redis.call('GET', key)
    entries[key] = value and decode_entry(key, value) or false
  end
  local entry = entries[key]
  return entry and (entry.state == 'O' or entry.due > now) and entry
end

local function id_of(entry)
  return string.sub(entry.key, #PREFIX + 3)
end

local function change_entry(entry)
  entries[entry.key], changed_entries[entry.key] = entry, true
  local into = entry.state == 'O' and opened or closed
  into[id_of(entry)] = entry.due
end

local function load_parts(entry)
  local keys = {}
  for i, part in ipairs(entry.parts) do keys[i] = part.meter end
  if #keys > 0 then load_meters(keys) end
end

-- Ends an open or expired reservation.
local function end_entry(entry, state, charged)
  local was_open = entry.state == 'O'
  for i, part in ipairs(entry.parts) do
    local meter = get_meter(part.meter)
    if meter then
      if was_open then
        part.mark = close(meter, part.mark, part.held, charged[i], now)
      else
        recharge(meter, part.mark, part.charged, charged[i], now)
      end
      change_meter(part.meter, meter)
    end
    part.charged = charged[i]
  end
  if was_open then
    open = math.max(open - 1, 0)
    -- Behind the ids of the limits comes the principal.
    local names = { struct.unpack('<' .. string.rep('s', #entry.parts + 1), entry.body) }
    count_open(PREFIX .. 'o:' .. names[#entry.parts + 1], -1)
  end
  entry.state, entry.due = state, now + DAY
  change_entry(entry)
end

-- Closes what nobody settled in time.
local function expire()
  if most == 0 or first_due > now then return end
  is_stale = true
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', text(now), 'LIMIT', 0, most)) do
    local entry = read_entry(PREFIX .. 'r:' .. id)
    if entry and entry.state == 'O' then
      load_parts(entry)
      local charged = {}
      for i, part in ipairs(entry.parts) do
        charged[i] = (part.unit == 'p' or part.release == 1) and 0 or part.held
      end
      end_entry(entry, 'X', charged)
    else
      gone[id] = true
    end
  end
end

-- Forgets reservations that are long over, and meters that tell nothing any longer; says how many it looked at.
local function forget()
  if most == 0 then return 0 end
  local names = redis.call('ZRANGEBYSCORE', LATER, '-inf', text(now), 'LIMIT', 0, most)
  for _, name in ipairs(names) do
    if string.sub(name, 1, 2) == 'r-' then
      local key = PREFIX .. 'r:' .. name
      local here = read_entry(key)
      local entry = entries[key]
      if here then
        -- Its name was given to another since.
        if here.state ~= 'O' then closed[name] = here.due end
      elseif entry then
        dropped[#dropped + 1] = key
        dropped[#dropped + 1] = PREFIX .. 'a:' .. name
        local named = PREFIX .. 'k:' .. entry.name
        -- A later one may have been given the same name.
        if entry.name ~= '' and redis.call('GET', named) == name then dropped[#dropped + 1] = named end
      end
      put_off[name] = false
    else
      load_meters({ name })
      local meter = get_meter(name)
      if meter and not is_blank(meter, now) then
        put_off[name] = now + DAY
      else
        put_off[name], blank_meters[name] = false, true
      end
    end
  end
  return #names
end

local function each_of(list, each)
  for name, at in pairs(each) do
    if at then
      list[#list + 1] = text(at)
      list[#list + 1] = name
    end
  end
end

-- Writes what changed. What could be of another type than expected was read before.
local function finish()
  for id in pairs(closed) do put_off[id] = nil end
  local add_due, drop_due, add_later, drop_later, values = {}, {}, {}, {}, {}
  for key in pairs(changed_meters) do
    values[#values + 1] = key
    values[#values + 1] = write_meter(meters[key])
    if new_meters[key] then put_off[key] = now + DAY end
    blank_meters[key] = nil
  end
  for key in pairs(blank_meters) do dropped[#dropped + 1] = key end
  for key in pairs(changed_entries) do
    values[#values + 1] = key
    values[#values + 1] = encode_entry(entries[key])
  end
  each_of(add_due, opened)
  each_of(add_later, closed)
  each_of(add_later, put_off)
  for id in pairs(closed) do drop_due[#drop_due + 1] = id end
  for id in pairs(gone) do drop_due[#drop_due + 1] = id end
  for name, at in pairs(put_off) do
    if not at then drop_later[#drop_later + 1] = name end
  end
  if #values == 0 and #add_later == 0 and #drop_later == 0 and not is_stale then return end
  sequence = sequence + 1
  if #add_due > 0 then redis.call('ZADD', DUE, unpack(add_due)) end
  if #drop_due > 0 then redis.call('ZREM', DUE, unpack(drop_due)) end
  if #drop_later > 0 then redis.call('ZREM', LATER, unpack(drop_later)) end
  if #add_later > 0 then redis.call('ZADD', LATER, unpack(add_later)) end
  for key, count in pairs(counters) do
    if count > 0 then
      values[#values + 1] = key
      values[#values + 1] = text(count)
    else
      dropped[#dropped + 1] = key
    end
  end
  if #dropped > 0 then redis.call('DEL', unpack(dropped)) end
  -- The quick way looks at nothing else to know that nothing is due.
  first_due = tonumber(redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2] or math.huge)
  redis.call('MSET', GENERATION, struct.pack('<sddds', here, sequence, open, first_due, ''), unpack(values))
end

-- What is told of a reservation: itself, and what was answered to whoever named it.
local function told(entry)
  local id = id_of(entry)
  local answer = entry.name ~= '' and redis.call('GET', PREFIX .. 'a:' .. id) or false
  return id, encode_entry(entry), answer
end

expire()
