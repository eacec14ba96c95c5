-- Where meters stand. KEYS: from the fourth on. Beside what is due, nothing changes: nodes read the texts, and bring them
-- to their instant. Without meters, what is long over is forgotten.
local keys, list, forgotten = {}, {}, 0
for i = 4, #KEYS do keys[i - 3] = KEYS[i] end
if #keys > 0 then
  load_meters(keys)
else
  forgotten = forget()
end
for i, key in ipairs(keys) do list[i] = meter_text(key) end
finish()
return { 'OK', text(sequence), list, text(forgotten) }
