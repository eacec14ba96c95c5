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

-- KEYS: the family, its first token. ARGV: the family's name, its identity, when its credential ends or '', when the token
-- does.
if ARGV[1] == 'begin' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[3], 'ends_at', ARGV[4])
  redis.call('HSET', KEYS[2], 'family', ARGV[2], 'expires_at', ARGV[5])
  ends(KEYS[1], ARGV[5])
  ends(KEYS[2], ARGV[5])
  return { 'begun' }
end

-- KEYS: the family, the token that is used, the next, the revoked families by when, the number of the last change.
-- ARGV: the family's name, now, when the next token usually ends, forget what was revoked before.
local family = redis.call('HMGET', KEYS[1], 'identity', 'ends_at', 'revoked_at')
local used = redis.call('HMGET', KEYS[2], 'expires_at', 'used_at')
if not family[1] or not used[1] then return { 'unknown' } end
if family[3] then return { 'revoked' } end
if used[2] then
  redis.call('HSET', KEYS[1], 'revoked_at', ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[5])
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[2])
  redis.call('INCR', KEYS[5])
  return { 'revoked' }
end
if tonumber(ARGV[3]) >= tonumber(used[1]) then return { 'expired' } end
local last = ARGV[4]
if family[2] ~= '' and tonumber(family[2]) < tonumber(last) then last = family[2] end
-- The one that was used is known for as long as the one that follows it, so that a second use is told.
redis.call('HSET', KEYS[2], 'used_at', ARGV[3])
redis.call('HSET', KEYS[3], 'family', ARGV[2], 'expires_at', last)
ends(KEYS[1], last)
ends(KEYS[2], last)
ends(KEYS[3], last)
return { 'replaced', family[1], family[2] }
