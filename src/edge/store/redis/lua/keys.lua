-- Changes a key or a password. KEYS: keys, or passwords, by id, changes of both by number, the number of the last change,
-- last uses by id.
-- ARGV: what (of keys make, first, change, remove; of passwords set, unset), the id, the version that was read, the text,
-- how many changes are remembered.
local known = redis.call('HGET', KEYS[1], ARGV[2])
local what = ARGV[1]
if what == 'make' or what == 'first' then
  if known or (what == 'first' and redis.call('HLEN', KEYS[1]) > 0) then return 'taken' end
elseif what == 'change' or what == 'remove' then
  if not known or tostring(cjson.decode(known)['version']) ~= ARGV[3] then return 'changed' end
end
if what == 'remove' or what == 'unset' then
  redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[4], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
end
local number = redis.call('INCR', KEYS[3])
redis.call('ZADD', KEYS[2], number, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', number - tonumber(ARGV[5]))
return 'done'
