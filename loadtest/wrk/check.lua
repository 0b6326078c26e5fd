-- Requests of a load plan (load_plan.h says what it is) for wrk, each answer checked: status, content, and that it answers
-- a request that this thread has under way.  wrk does not tell a script which request an answer belongs to, so an answer
-- that went to the wrong connection of the same thread would pass here; http_load would see it.
--
--     LOAD_PLAN=<file> LOAD_IDS=<prefix> wrk -s check.lua ...
--
-- The ids of new orders go to <prefix>.<thread>, a line each.  The last line of the output is one JSON object.

local PRODUCT_FORMAT = "%012d"
local WRONG_SHOWN_MAX = 3
local PATTERNS = {product = "(%d+)", order = "(%d+)", integer = "%-?%d+", new = "(%d+)"}
local threads = {}

local function unescape(text)
    return (text:gsub("\\(.)", function(c) return c == "r" and "\r" or c == "n" and "\n" or c end))
end

-- "a{order}b" -> {"a", {name = "order"}, "b"}
local function parts_of(text)
    local parts, from = {}, 1
    while true do
        local first, last, name = text:find("{(%l+)}", from)
        while first and not PATTERNS[name] do
            first, last, name = text:find("{(%l+)}", last + 1)
        end
        parts[#parts + 1] = text:sub(from, (first or 0) - 1)
        if not first then
            return parts
        end
        parts[#parts + 1] = {name = name}
        from = last + 1
    end
end

local function answer_of(text)
    local pattern, captures = "^", {}
    for _, part in ipairs(parts_of(text)) do
        if type(part) == "string" then
            pattern = pattern .. part:gsub("%W", "%%%0")
        else
            pattern = pattern .. PATTERNS[part.name]
            if part.name ~= "integer" then
                captures[#captures + 1] = part.name
            end
        end
    end
    return pattern .. "$", captures
end

local function read_plan(path)
    local plan, kind = {kinds = {}, weights = 0}, nil
    for line in io.lines(path) do
        local word, value = line:match("^(%S+) (.*)$")
        if word == "products" or word == "orders" then
            plan[word] = tonumber(value)
        elseif word == "kind" then
            kind = {name = value, waiting = {}, waiting_count = 0}
            plan.kinds[#plan.kinds + 1] = kind
        elseif word == "weight" then
            kind.weight = tonumber(value)
            plan.weights = plan.weights + kind.weight
        elseif word == "numbers" then
            kind.numbers = value
        elseif word == "status" then
            kind.status = tonumber(value)
        elseif word == "request" then
            kind.request = parts_of(unescape(value))
        elseif word == "answer" then
            kind.text = unescape(value)
            kind.pattern, kind.captures = answer_of(kind.text)
        end
    end
    return plan
end

function setup(thread)
    threads[#threads + 1] = thread
    thread:set("thread_number", #threads)
end

function init()
    plan = read_plan(os.getenv("LOAD_PLAN"))
    ids = io.open(os.getenv("LOAD_IDS") .. "." .. thread_number, "w")
    ids:setvbuf("full", 65536)
    wrong, sent = 0, 0
    is_probed = thread_number ~= 1 -- wrk asks the first thread for one request that it never sends
    math.randomseed(os.time() * 64 + thread_number)
end

local function draw_kind()
    if not plan.kinds[2] then
        return plan.kinds[1]
    end
    local at = math.random(plan.weights)
    for _, kind in ipairs(plan.kinds) do
        at = at - kind.weight
        if at <= 0 then
            return kind
        end
    end
end

local function product_text(number)
    return PRODUCT_FORMAT:format((number - 1) % plan.products + 1)
end

function request()
    local kind = draw_kind()
    local number = math.random(plan[kind.numbers])
    local out = {}
    for i, part in ipairs(kind.request) do
        out[i] = part
        if type(part) == "table" then
            out[i] = part.name == "product" and product_text(number) or tostring(number)
        end
    end
    if not is_probed then
        is_probed = true
        return table.concat(out)
    end
    sent = sent + 1
    kind.waiting[number] = (kind.waiting[number] or 0) + 1
    kind.waiting_count = kind.waiting_count + 1
    return table.concat(out)
end

-- The number that the answer speaks of; nil when its parts do not belong together; false when it speaks of none.
local function number_of(kind, captured)
    local number, product = false, nil
    for i, name in ipairs(kind.captures) do
        if name == "new" then
            return false
        elseif name == "order" then
            if number and number ~= tonumber(captured[i]) then
                return nil
            end
            number = tonumber(captured[i])
        elseif product and product ~= captured[i] then
            return nil
        else
            product = captured[i]
        end
    end
    if product and number and product ~= product_text(number) then
        return nil
    end
    return number or (product and tonumber(product))
end

local function answers(kind, status, body)
    if status ~= kind.status or kind.waiting_count == 0 then
        return false
    end
    if #kind.captures == 0 and body == kind.text then
        kind.waiting_count = kind.waiting_count - 1
        return true
    end
    local captured = {body:match(kind.pattern)}
    if not captured[1] then
        return false
    end
    local number = number_of(kind, captured)
    if number == nil or (number and (kind.waiting[number] or 0) == 0) then
        return false
    end
    if number then
        kind.waiting[number] = kind.waiting[number] - 1
    elseif kind.captures[1] == "new" then
        ids:write(captured[1], "\n")
    end
    kind.waiting_count = kind.waiting_count - 1
    return true
end

function response(status, headers, body)
    for _, kind in ipairs(plan.kinds) do
        if answers(kind, status, body) then
            return
        end
    end
    wrong = wrong + 1
    if wrong <= WRONG_SHOWN_MAX then
        io.stderr:write("wrk: a wrong answer: ", status, " ", body:sub(1, 2000), "\n")
    end
end

function done(summary, latency)
    local all_wrong, all_sent = 0, 0
    for _, thread in ipairs(threads) do
        all_wrong = all_wrong + (thread:get("wrong") or 0)
        all_sent = all_sent + (thread:get("sent") or 0)
    end
    local errors = summary.errors
    io.write(string.format(
        '\n{"rate": %.1f, "sent": %d, "answered": %d, "wrong": %d, "failed": %d, "timeouts": %d, "p50_us": %d, ' ..
        '"p90_us": %d, "p99_us": %d, "p999_us": %d, "max_us": %d}\n',
        summary.requests * 1e6 / summary.duration, all_sent, summary.requests, all_wrong,
        errors.connect + errors.read + errors.write, errors.timeout, latency:percentile(50), latency:percentile(90),
        latency:percentile(99), latency:percentile(99.9), latency.max))
end
