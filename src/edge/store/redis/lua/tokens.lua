-- Moves what Tollgate's own tokens are known by. KEYS and ARGV as each of the three says; ARGV[1] is which.
-- What outlives its end does so for a minute, so that "expired" can be told from "unknown".
local function ends(key, at) redis.call('PEXPIREAT', key, tonumber(at) + 60000) end

-- KEYS: the keys by name, the number of the last change. ARGV: the name, the text ("<made at> <sealed>"), when it was made,
-- unless one was made since, forget those whose successor was made before.
if ARGV[1] == 'keep' then
  local all, latest = redis.call('HGETALL', KEYS[1]), nil
  for i = 2, #all, 2 do
    local made = tonumber(string.match(all[i], '^-?%d+'))
    if made >= tonumber(ARGV[5]) then return { 'other' } end
    if made < tonumber(ARGV[6]) and (not latest or made > latest) then latest = made end
  end
  for i = 2, #all, 2 do
    if latest and tonumber(string.match(all[i], '^-?%d+')) < latest then redis.call('HDEL', KEYS[1], all[i - 1]) end
  end
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  redis.call('INCR', KEYS[2])
  return { 'kept' }
end

-- Forgets a family of this name, and its tokens; `prefix` is what the names of all keys begin with.
local function forget(prefix, id)
  local family, used = prefix .. 'family:' .. id, prefix .. 'used:' .. id
  local token = redis.call('HGET', family, 'token')
  for _, key in ipairs(redis.call('LRANGE', used, 0, -1)) do redis.call('DEL', key) end
  redis.call('DEL', family, used, token or used)
end

-- KEYS: the family, its first token, the principal's families. ARGV: the family's name, its identity, when its credential
-- ends or '', when the token does, the principal, now, how many families a principal has at most, what all keys begin with.
if ARGV[1] == 'begin' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[3], 'ends_at', ARGV[4], 'principal', ARGV[6], 'token', KEYS[2])
  redis.call('HSET', KEYS[2], 'family', ARGV[2], 'expires_at', ARGV[5])
  ends(KEYS[1], ARGV[5])
  ends(KEYS[2], ARGV[5])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. ARGV[7])
  local surplus = redis.call('ZCARD', KEYS[3]) + 1 - tonumber(ARGV[8])
  for _, id in ipairs(surplus > 0 and redis.call('ZRANGE', KEYS[3], 0, surplus - 1) or {}) do
    redis.call('ZREM', KEYS[3], id)
    forget(ARGV[9], id)
  end
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[2])
  if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[5]) - tonumber(ARGV[7]) then ends(KEYS[3], ARGV[5]) end
  return { 'begun' }
end

-- KEYS: the family, the token that is used, the next, the revoked families by when, the number of the last change, the
-- tokens of the family that were used, the principal's families, and those of them that are revoked by when. ARGV: the
-- family's name, now, when the next token usually ends, forget what was revoked before, how many used tokens are known at
-- most, how many revoked families of a principal, what all keys begin with.
local family = redis.call('HMGET', KEYS[1], 'identity', 'ends_at', 'revoked_at')
local used = redis.call('HMGET', KEYS[2], 'expires_at', 'used_at')
if not family[1] or not used[1] then return { 'unknown' } end
if family[3] then return { 'revoked' } end
if used[2] then
  redis.call('HSET', KEYS[1], 'revoked_at', ARGV[3])
  redis.call('ZREM', KEYS[7], ARGV[2])
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[5])
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[2])
  redis.call('ZADD', KEYS[8], ARGV[3], ARGV[2])
  ends(KEYS[8], tonumber(ARGV[3]) + 90 * 24 * 3600 * 1000)
  local surplus = redis.call('ZCARD', KEYS[8]) - tonumber(ARGV[7])
  for _, id in ipairs(surplus > 0 and redis.call('ZRANGE', KEYS[8], 0, surplus - 1) or {}) do
    redis.call('ZREM', KEYS[8], id)
    redis.call('ZREM', KEYS[4], id)
    forget(ARGV[8], id)
  end
  redis.call('INCR', KEYS[5])
  return { 'revoked' }
end
if tonumber(ARGV[3]) >= tonumber(used[1]) then return { 'expired' } end
local last = ARGV[4]
if family[2] ~= '' and tonumber(family[2]) < tonumber(last) then last = family[2] end
-- The one that was used is known for as long as the one that follows it, so that a second use is told.
redis.call('HSET', KEYS[1], 'token', KEYS[3])
redis.call('HSET', KEYS[2], 'used_at', ARGV[3])
redis.call('HSET', KEYS[3], 'family', ARGV[2], 'expires_at', last)
for _, key in ipairs({ KEYS[1], KEYS[2], KEYS[3] }) do ends(key, last) end
redis.call('LPUSH', KEYS[6], KEYS[2])
if redis.call('LLEN', KEYS[6]) > tonumber(ARGV[6]) then redis.call('DEL', redis.call('RPOP', KEYS[6])) end
ends(KEYS[6], last)
-- Whoever refreshes counts as long as the token lives that it gets.
redis.call('ZADD', KEYS[7], 'XX', last, ARGV[2])
if redis.call('PTTL', KEYS[7]) < tonumber(last) - tonumber(ARGV[3]) then ends(KEYS[7], last) end
return { 'replaced' }
