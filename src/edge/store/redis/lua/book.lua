-- What every script begins and ends with. KEYS: generation, due. ARGV: epoch, the highest sequence that the node saw,
-- now, how many may expire on the way, the prefix of keys. Nothing is written before `finish`, so that a script that
-- fails on its way has changed nothing.
local now, PREFIX = tonumber(ARGV[3]), ARGV[5]
local generation = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'open', 'lost')
local sequence, open = tonumber(generation[2] or '-1'), tonumber(generation[3] or '0')
if generation[1] ~= ARGV[1] or sequence < tonumber(ARGV[2]) or generation[4] then
  local here, epochs = generation[1] or '', redis.call('GET', PREFIX .. 'epochs') or ''
  if not generation[4] and has_all(epochs, here, sequence, ARGV[1], tonumber(ARGV[2])) then
    return { 'EPOCH', text(sequence), here }
  end
  -- Every node is to know, also one that saw less.
  local is_same = string.match(here, '^%x+') == string.match(ARGV[1], '^%x+')
  if is_same and not generation[4] then redis.call('HSET', KEYS[1], 'lost', ARGV[2]) end
  return { 'LOST', text(math.max(sequence, 0)), is_same and here or '', generation[4] or ARGV[2], here }
end

-- Meters by key: as a text as long as nobody has to know more, `false` where there is none.
local meters, changed_meters = {}, {}
local entries, changed_entries, dues, removed = {}, {}, {}, {}

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
  if type(meter) == 'table' then return (write_meter(meter, now)) end
  return meter or ''
end

local function change_meter(key, meter)
  meters[key], changed_meters[key] = meter, true
end

-- A reservation: a line about it, one for each of its parts, and what only nodes read.
local function read_entry(key)
  if entries[key] ~= nil then return entries[key] end
  local value = redis.call('GET', key)
  entries[key] = false
  if not value then return false end
  local ends = string.find(value, '\n\n', 1, true)
  local lines = string.gmatch(string.sub(value, 1, ends), '([^\n]+)\n')
  local state, due, created, digest, name = string.match(lines(), '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  local entry = { key = key, state = state, due = tonumber(due), created = created, digest = digest, name = name,
    parts = {}, body = string.sub(value, ends + 2) }
  for line in lines do
    local unit, release, held, charged, mark, meter = string.match(line, '^(%S) (%d) (%d+) (%d+) (%S+) (.+)$')
    entry.parts[#entry.parts + 1] =
      { unit = unit, release = release, held = parse(held), charged = parse(charged), mark = mark, meter = meter }
  end
  entries[key] = entry
  return entry
end

local function write_entry(entry)
  local lines = { string.format('%s %.0f %s %s %s', entry.state, entry.due, entry.created, entry.digest, entry.name) }
  for i, part in ipairs(entry.parts) do
    lines[i + 1] = string.format('%s %s %s %s %s %s', part.unit, part.release, text(part.held), text(part.charged),
      part.mark, part.meter)
  end
  lines[#lines + 1] = ''
  lines[#lines + 1] = entry.body
  return table.concat(lines, '\n')
end

local function change_entry(entry)
  entries[entry.key], changed_entries[entry.key] = entry, true
  dues[string.sub(entry.key, #PREFIX + 3)] = entry.due
end

local function load_parts(entry)
  local keys = {}
  for i, part in ipairs(entry.parts) do keys[i] = part.meter end
  load_meters(keys)
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
  if was_open then open = math.max(open - 1, 0) end
  entry.state, entry.due = state, now + DAY
  change_entry(entry)
end

local function remove_entry(id, entry)
  removed[#removed + 1] = id
  dues[id] = nil
  if entry and entry.name ~= '' then
    local key = PREFIX .. 'k:' .. entry.name
    -- A later one may have been given the same name.
    if redis.call('GET', key) == id then removed[#removed + 1] = key end
  end
end

-- Closes what nobody settled in time, and forgets what is long over.
local function expire(most)
  if most == 0 then return end
  local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[3], 'LIMIT', 0, most)
  for _, id in ipairs(due) do
    local entry = read_entry(PREFIX .. 'r:' .. id)
    if entry and entry.state == 'O' then
      load_parts(entry)
      local charged = {}
      for i, part in ipairs(entry.parts) do
        charged[i] = (part.unit == 'p' or part.release == '1') and 0 or part.held
      end
      end_entry(entry, 'X', charged)
    else
      remove_entry(id, entry)
      entries[PREFIX .. 'r:' .. id] = false
    end
  end
end

-- Writes what changed. What could be of another type than expected was read before.
local function finish()
  local add_due, drop, drop_due = {}, {}, {}
  for id, due in pairs(dues) do
    add_due[#add_due + 1] = text(due)
    add_due[#add_due + 1] = id
  end
  for _, name in ipairs(removed) do
    if string.sub(name, 1, #PREFIX) == PREFIX then
      drop[#drop + 1] = name
    else
      drop_due[#drop_due + 1] = name
      drop[#drop + 1] = PREFIX .. 'r:' .. name
      drop[#drop + 1] = PREFIX .. 'a:' .. name
    end
  end
  if #add_due == 0 and #drop_due == 0 and next(changed_meters) == nil then return end
  sequence = sequence + 1
  redis.call('HSET', KEYS[1], 'sequence', text(sequence), 'open', text(open))
  if #add_due > 0 then redis.call('ZADD', KEYS[2], unpack(add_due)) end
  if #drop_due > 0 then
    redis.call('ZREM', KEYS[2], unpack(drop_due))
    redis.call('DEL', unpack(drop))
  end
  for key in pairs(changed_meters) do
    local state, keep = write_meter(meters[key], now)
    if keep and le(keep, 1e14) then
      redis.call('SET', key, state, 'PX', text(math.max(keep, 0) + 2 * DAY))
    else
      redis.call('SET', key, state)
    end
  end
  for key in pairs(changed_entries) do redis.call('SET', key, write_entry(entries[key])) end
end

-- What is told of a reservation: itself, and what was answered to whoever named it.
local function told(entry)
  local id = string.sub(entry.key, #PREFIX + 3)
  local answer = entry.name ~= '' and redis.call('GET', PREFIX .. 'a:' .. id) or false
  return id, write_entry(entry), answer
end

expire(tonumber(ARGV[4]))
