-- wrk: a range request of one key to etcd's JSON gateway. Argument: the key in base64.
function init(arguments)
  wrk.method = "POST"
  wrk.body = '{"key":"' .. arguments[1] .. '"}'
  wrk.headers["Content-Type"] = "application/json"
end
