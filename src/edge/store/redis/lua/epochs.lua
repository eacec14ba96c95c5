-- Whether all is here that a node saw, up to `seen` in an epoch that may be over: then none that came after began with
-- less. `epochs` has the last ones, each with the sequence that it began with.
local function has_all(epochs, here, sequence, epoch, seen)
  if sequence < seen or string.match(here, '^%x+') ~= string.match(epoch, '^%x+') then return false end
  local _, ends = string.find(epochs, epoch .. ':%d+ ')
  for began in string.gmatch(string.sub(epochs, (ends or 0) + 1), ':(%d+) ') do
    if tonumber(began) < seen then return false end
  end
  return true
end
