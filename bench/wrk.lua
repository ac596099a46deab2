-- Sends payments. ROUTE is the path, SIZE the size of the JSON body in bytes, SERIES a name that no other run uses.
-- With REPEAT every request has the same key, otherwise each has a key of its own. With SESSION, four characters that are
-- the series' own, each key comes with the cookie of a session of its own. With CHECK replays are counted.
local head, tail, session, number, fixed
local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("thread", #threads)
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
  if os.getenv("SESSION") then
    -- With the number these are 22 characters, 128 bits in base64 without padding.
    session = "\r\nCookie: id=user-" .. os.getenv("SESSION")
    tail = "A" .. tail
  end
  number = 0
  replays = 0
  if os.getenv("CHECK") then response = count_replays end
end

function request()
  -- The same work in every kind of run, so that wrk's own cost is the same.
  number = number + 1
  local this = string.format("%012d", fixed and 0 or number)
  if session then return head .. this .. session .. this .. tail end
  return head .. this .. tail
end

-- The header's name differs between libraries.
function count_replays(_, headers)
  for name in pairs(headers) do
    if name:lower():find("^idempote.*%-replay") then replays = replays + 1 end
  end
end

function done(summary, _, _)
  local errors = summary.errors
  local failed = errors.status + errors.read + errors.write + errors.timeout + errors.connect
  local replayed = 0
  for _, thread in ipairs(threads) do replayed = replayed + thread:get("replays") end
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration, failed, replayed))
end
