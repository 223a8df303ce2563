-- wrk: GET of the keys whose numbers are in a file, one a line, over and over.
-- Arguments: the file, what stands before a key in the path, the token.
local requests, at = {}, 0

function init(arguments)
  local headers = { ["Authorization"] = "Bearer " .. arguments[3] }
  for number in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("GET", arguments[2] .. string.format("key-%08d", number), headers)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
