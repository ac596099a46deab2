-- Sends payments. ROUTE is the path, SIZE the size of the JSON body in bytes, SERIES a name that no other run uses.
-- With REPEAT every request has the same key, otherwise each has a key of its own.
local head, tail, number, fixed

function setup(thread)
  threads = (threads or 0) + 1
  thread:set("thread", threads)
end

function init()
  local open, close = '{"amount":100,"note":"', '"}'
  local size = tonumber(os.getenv("SIZE"))
  local body = open .. string.rep("x", size - #open - #close) .. close
  fixed = os.getenv("REPEAT") ~= nil
  head = "POST " .. os.getenv("ROUTE") .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    .. "Content-Length: " .. size .. "\r\nIdempotency-Key: " .. os.getenv("SERIES") .. "-"
  if not fixed then head = head .. thread .. "-" end
  tail = "\r\n\r\n" .. body
  number = 0
end

function request()
  -- The same work in every kind of run, so that wrk's own cost is the same.
  number = number + 1
  return head .. string.format("%012d", fixed and 0 or number) .. tail
end

function done(summary, _, _)
  local errors = summary.errors
  local failed = errors.status + errors.read + errors.write + errors.timeout + errors.connect
  io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration, failed))
end
