-- Where meters stand. KEYS: from the third on. Beside what is due, nothing changes: nodes read the texts, and bring them
-- to their instant.
local keys, list = {}, {}
for i = 3, #KEYS do keys[i - 2] = KEYS[i] end
if #keys > 0 then load_meters(keys) end
for i, key in ipairs(keys) do list[i] = meter_text(key) end
finish()
return { 'OK', text(sequence), list }
