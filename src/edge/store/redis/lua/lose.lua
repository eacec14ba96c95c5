-- Marks the generation as one that has lost something, for every node: the Redis dropped keys. KEYS: the generation.
local found = redis.call('GET', KEYS[1])
if not found then return '' end
local epoch, sequence, open, first_due, lost = struct.unpack('<sddds', found)
if lost == '' then redis.call('SET', KEYS[1], struct.pack('<sddds', epoch, sequence, open, first_due, 'evicted')) end
return epoch
