-- wrk: bulk get of a hundred keys whose numbers are in a file, one a line, over and over.
-- Arguments: the file, the path, the token.
local requests, at = {}, 0
local AT_ONCE = 100

function init(arguments)
  local headers = { ["Authorization"] = "Bearer " .. arguments[3], ["Content-Type"] = "application/json" }
  local keys = {}
  for number in io.lines(arguments[1]) do
    keys[#keys + 1] = string.format('"key-%08d"', number)
    if #keys == AT_ONCE then
      requests[#requests + 1] =
        wrk.format("POST", arguments[2], headers, '{"keys":[' .. table.concat(keys, ",") .. "]}")
      keys = {}
      if #requests == 1000 then return end
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
