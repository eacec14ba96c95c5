-- Which percents were reached that nobody was told of; from now on somebody was. A meter with none to tell stays as it is.
load_charged()
local list, percents = {}, {}
for i, charge in ipairs(charges) do
  local before, percent = meter_text(charge.key), 0
  if before ~= '' then
    local meter = advance(read_meter(before), charge, now)
    percent = warn(meter, charge)
    if percent > 0 then change_meter(charge.key, meter) end
  end
  percents[i] = text(percent)
end
for i, charge in ipairs(charges) do list[i] = meter_text(charge.key) end
finish()
return { 'OK', text(sequence), list, percents }
