-- One exchange with the limits of a resource, whole or not at all; see redis_limits.py, which puts the constants first.
--
-- KEYS[1]  what all limit groups of the resource have in common: its clock, its era, its grace
-- KEYS[2]  one of them: owners, claims, cool-down, last start
-- KEYS[3]  how the sorted sets of what was answered begin, one a unit: running totals, by the time of the answer
-- ARGV[1]  the report, ARGV[2] who makes it: both as MessagePack, which keeps all digits of a number
local report, caller = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local INF = math.huge

local function load(key)
  local packed = redis.call("GET", key)
  return packed and cmsgpack.unpack(packed) or nil
end

local common, state = load(KEYS[1]), load(KEYS[2])
if report.owner == "" and not report.cool_s and not state then
  return false -- looking makes nothing
end

---- time: the server's, and never back

local is_first = not common
if common and common.version > VERSION then
  return redis.error_reply(LATER)
end
common = common
  or { version = VERSION, last_s = 0, seq = 0, past = {}, runs = {}, begun_s = -INF, grace_s = -INF, why = "" }
local before_s, now_s = common.last_s, caller.now_s
if not now_s then
  local time = redis.call("TIME")
  now_s = time[1] + time[2] / 1e6
end
now_s = math.max(now_s, before_s, state and state.last_s or 0)
common.last_s = now_s

---- eras: what the store has lost, and who has to say again what it knows

local function begin_era(is_lost)
  if common.id then
    table.insert(common.past, { common.id, common.seq, before_s })
    if #common.past > PAST_ERAS then
      table.remove(common.past, 1)
    end
  end
  common.id, common.begun_s, common.is_lost = caller.token, now_s, is_lost
end

local function hold(seconds, why)
  if seconds > 0 and now_s + seconds > common.grace_s then
    common.grace_s, common.why = now_s + seconds, why
  end
end

local function seen_run()
  for _, run in ipairs(common.runs) do
    if run == caller.run then
      return true
    end
  end
  table.insert(common.runs, caller.run)
  if #common.runs > PAST_ERAS then
    table.remove(common.runs, 1)
  end
  return false
end

local function lasted(id) -- how many exchanges of an era are not lost, and when it ended
  if id == common.id then
    return common.seq, -INF
  end
  for _, era in ipairs(common.past) do
    if era[1] == id then
      return era[2], era[3]
    end
  end
  return -1, -INF
end

local is_other_run = caller.run ~= "" and not seen_run()
if is_first then
  begin_era(false)
  hold(caller.settle_s, NEW)
elseif (is_other_run or caller.is_script_new) and now_s >= common.begun_s + SETTLE_S then
  begin_era(false)
  hold(caller.settle_s > 0 and RESTART_S or 0, RESTARTED)
end

if state then
  for unit, answers in pairs(state.answers) do
    if redis.call("ZCARD", KEYS[3] .. unit) ~= answers then
      state.born, state.answers = caller.token, {}
      break
    end
  end
end
local seq, ended_s = lasted(caller.id)
local is_whole = caller.born == "" or caller.born == (state and state.born)
local is_anew = caller.id ~= "" and (caller.seq > seq or not is_whole)
-- Of what it says again, what it had reported long before the loss is here; of whom nothing is known all is counted.
local kept_s = is_anew and (is_whole and ended_s - LEASE_S or -INF) or nil
if is_anew and (caller.id == common.id or not common.is_lost) then
  if caller.id == common.id then
    begin_era(true)
  end
  common.is_lost = true
  hold(LEASE_S, LOST)
elseif is_anew then
  hold(caller.settle_s, LOST)
end
common.seq = common.seq + 1

state = state
  or {
    born = caller.token, last_s = now_s, touched_s = -INF, started_s = -INF,
    cool_until_s = -INF, why = "", spender = "", thin = 0, owners = {}, answers = {},
  }
state.last_s = now_s
if is_anew and caller.cool_s > 0 and now_s + caller.cool_s > state.cool_until_s then
  state.cool_until_s, state.why = now_s + caller.cool_s, caller.why
end

---- what was answered: a member of a set is a running total, whose bytes are in order as the numbers are

local owners, mine = state.owners, report.owner
local tails = {} -- by unit: when the last answer was, and the total
local changed = {} -- units whose sets have changed

local function exact(number)
  return string.format("%.17g", number)
end

local function total_of(member)
  return (struct.unpack(">d", member))
end

local function tail_of(unit)
  if not tails[unit] then
    local found = redis.call("ZRANGE", KEYS[3] .. unit, -1, -1, "WITHSCORES")
    tails[unit] = found[1] and { tonumber(found[2]), total_of(found[1]) } or { -INF, 0 }
  end
  return tails[unit]
end

local function total_at(unit, at_s)
  local found = redis.call("ZREVRANGEBYSCORE", KEYS[3] .. unit, exact(at_s), "-inf", "LIMIT", 0, 1)
  return found[1] and total_of(found[1]) or 0
end

local function spend(at_s, unit, cost, spender)
  state.spender = spender
  if cost <= 0 then
    return
  end
  local tail = tail_of(unit)
  at_s = math.max(tail[1], math.min(at_s, now_s))
  tails[unit] = { at_s, tail[2] + cost }
  redis.call("ZADD", KEYS[3] .. unit, "NX", exact(at_s), struct.pack(">d", tail[2] + cost))
  state.thin = state.thin + 1
  if not state.answers[unit] then
    state.touched_s = -INF
  end
  changed[unit] = true
end

local function held_s(rate)
  return rate.per_s * CLOCK_DRIFT
end

local function in_flight(unit)
  local sum = 0
  for _, owner in pairs(owners) do
    sum = sum + (owner.in_flight[unit] or 0)
  end
  return sum
end

local function used_of(rate)
  local total, before = tail_of(rate.unit)[2], total_at(rate.unit, now_s - held_s(rate))
  return in_flight(rate.unit) + total - before, total, before
end

local function fits_in_s(rate, cost)
  local key, since_s = KEYS[3] .. rate.unit, now_s - held_s(rate)
  local used, total, before = used_of(rate)
  local over = cost > rate.limit and used or used + cost - rate.limit
  if over <= 1e-9 then
    return 0
  end
  local wanted = before + over - 1e-9
  if total < wanted then
    return INF
  end
  local low, high = redis.call("ZCOUNT", key, "-inf", exact(since_s)), redis.call("ZCARD", key) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if total_of(redis.call("ZRANGE", key, middle, middle)[1]) >= wanted then
      high = middle
    else
      low = middle + 1
    end
  end
  return tonumber(redis.call("ZRANGE", key, low, low, "WITHSCORES")[2]) + held_s(rate) - now_s
end

local function fill(counted) -- at least so much is taken as the service says
  local rate, key = counted.rate, KEYS[3] .. counted.rate.unit
  local more = counted.used - used_of(rate)
  if more <= 0 then
    return
  end
  local at_s = now_s + math.min(counted.reset_s - held_s(rate), 0)
  local before = total_at(rate.unit, at_s)
  local later = redis.call("ZRANGEBYSCORE", key, "(" .. exact(at_s), "+inf", "WITHSCORES")
  redis.call("ZREMRANGEBYSCORE", key, "(" .. exact(at_s), "+inf")
  redis.call("ZADD", key, "NX", exact(at_s), struct.pack(">d", before + more))
  for place = 1, #later, 2 do
    redis.call("ZADD", key, "NX", later[place + 1], struct.pack(">d", total_of(later[place]) + more))
  end
  tails[rate.unit], state.spender, changed[rate.unit] = nil, mine, true
end

---- the limits that all owners hold to together

local function cost_in(unit, cost)
  return cost[unit] or (unit == "requests" and 1 or 0)
end

local function strictest()
  local concurrency, spacing_s, rates, known = INF, 0, {}, {}
  for _, owner in pairs(owners) do
    concurrency = math.min(concurrency, owner.bounds.concurrency or INF)
    spacing_s = math.max(spacing_s, owner.bounds.spacing_s)
    for _, rate in ipairs(owner.bounds.rates) do
      local name = exact(rate.limit) .. " " .. exact(rate.per_s) .. " " .. rate.unit
      if not known[name] then
        known[name] = true
        table.insert(rates, rate)
      end
    end
  end
  return concurrency, spacing_s, rates
end

local function lapse() -- who is silent for longer than its lease may have sent all until now
  if now_s < common.grace_s then
    return -- nothing starts, and whoever could not report has time to come back
  end
  for name, owner in pairs(owners) do
    if name ~= mine and owner.until_s <= now_s then
      owners[name] = nil
      for unit, cost in pairs(owner.in_flight) do
        spend(now_s, unit, cost, name)
      end
    end
  end
end

local function thin_out(rates) -- moments that no window tells apart: a cost counts a little longer, never shorter
  for unit in pairs(state.answers) do
    local key, lengths = KEYS[3] .. unit, { unpack(LENGTHS_S) }
    for _, rate in ipairs(rates) do
      if rate.unit == unit then
        table.insert(lengths, held_s(rate))
      end
    end
    table.sort(lengths)
    for place = 2, #lengths do
      local step_s = lengths[place] / STEPS
      local span = redis.call(
        "ZRANGEBYSCORE", key, "(" .. exact(now_s - lengths[place]), exact(now_s - lengths[place - 1]), "WITHSCORES"
      )
      for one = 1, #span - 3, 2 do -- the last one of each step stays
        if math.floor(span[one + 1] / step_s) == math.floor(span[one + 3] / step_s) then
          redis.call("ZREM", key, span[one])
        end
      end
    end
    local older = redis.call("ZCOUNT", key, "-inf", exact(now_s - lengths[#lengths]))
    if older > 0 then -- of no window, not of one either that is longer than all so far
      if older > 1 then
        redis.call("ZREMRANGEBYRANK", key, 0, older - 2)
      end
      redis.call("ZADD", key, "-inf", redis.call("ZRANGE", key, 0, 0)[1])
    end
    changed[unit] = true
  end
  state.thin = 0
end

---- whose turn it is

local function give_way_s(others, since_s)
  local wait_s, of_slot = 0, false
  for name, claim in pairs(others) do
    local is_older = claim.since_s < math.min(since_s, now_s - TURN_S)
    if not claim.of_slot then
      if is_older then
        wait_s = math.max(wait_s, YIELD_S, claim.asks_s - now_s)
      end
    elseif report.slot then
      local running = owners[name].running
      if running < report.running or (is_older and running == report.running) then
        wait_s, of_slot = math.max(wait_s, YIELD_S), true
      end
    end
  end
  return wait_s, of_slot
end

local function fly(owner, wanted, times)
  local flight = owner.in_flight
  flight.requests = (flight.requests or 0) + times * cost_in("requests", wanted)
  for unit, cost in pairs(wanted) do
    if unit ~= "requests" then
      flight[unit] = (flight[unit] or 0) + times * cost
    end
  end
  owner.running = owner.running + (report.slot and times or 0)
end

local function running_of_all()
  local sum = 0
  for _, owner in pairs(owners) do
    sum = sum + owner.running
  end
  return sum
end

local function decide(me, claimed) -- how long to wait, and how many more are granted at once
  local wanted, wait_s, of_slot = report.wanted, 0, false
  local concurrency, spacing_s, rates = strictest()
  local is_request = cost_in("requests", wanted) ~= 0
  if report.slot and running_of_all() >= concurrency then
    wait_s, of_slot = INF, true
  else
    wait_s = math.max(0, state.cool_until_s - now_s, common.grace_s - now_s)
    if is_request then
      wait_s = math.max(wait_s, state.started_s + spacing_s - now_s)
    end
    for _, rate in ipairs(rates) do
      wait_s = math.max(wait_s, fits_in_s(rate, cost_in(rate.unit, wanted)))
    end
  end
  local others, is_alone = {}, true
  for name, owner in pairs(owners) do
    if name ~= mine and owner.claim and now_s < owner.claim.until_s then
      others[name], is_alone = owner.claim, false
    end
  end
  local since_s = claimed and now_s < claimed.until_s and claimed.since_s or now_s
  if wait_s == 0 then
    wait_s, of_slot = give_way_s(others, since_s)
  end
  if wait_s > 0 then
    local again_s = wait_s == INF and POLL_MOST_S or math.min(wait_s, PULSE_S)
    local until_s = now_s + again_s + HEED_S + math.min(report.round_s, ROUND_MOST_S)
    me.claim = { since_s = since_s, asks_s = now_s + wait_s, until_s = until_s, of_slot = of_slot }
    return wait_s, 0
  end
  if is_request then
    local due_s = state.started_s + spacing_s
    state.started_s = now_s >= due_s and now_s - due_s < LATE_S and due_s or now_s
  end
  fly(me, wanted, 1)
  local more = report.more
  if more == 0 or not is_alone or (is_request and spacing_s > 0) then
    return 0, 0
  end
  if report.slot then
    more = math.min(more, concurrency - running_of_all())
  end
  for _, rate in ipairs(rates) do
    local cost = cost_in(rate.unit, wanted)
    if cost > 0 then
      more = math.min(more, math.floor((rate.limit - used_of(rate) + 1e-9) / cost))
    end
  end
  more = math.max(0, more)
  fly(me, wanted, more)
  return 0, more
end

---- the exchange

lapse()
local is_stranger = state.spender ~= "" and state.spender ~= mine
local wait_s, more, before = 0, 0, owners[mine]
if before and report.number > 0 and report.number <= before.number then -- a later one has come before it
  is_stranger, wait_s = false, INF
else
  local counted = before and report.number > 0 and math.max(0, before.said - report.said) or 0
  for place = counted + 1, #report.spent do
    local ago_s, unit, cost = unpack(report.spent[place])
    if not before or now_s - ago_s > before.kept_s then
      spend(now_s - ago_s, unit, cost, mine)
    end
  end
  if report.cool_s == 0 then
    state.cool_until_s, common.grace_s = -INF, -INF
  elseif report.cool_s then
    state.cool_until_s = math.max(state.cool_until_s, now_s + report.cool_s)
  end
  state.why = report.cool_s and report.why or state.why
  if report.cool_most_s then
    local is_alone = true
    for name in pairs(owners) do
      is_alone = is_alone and name == mine
    end
    if is_alone then
      state.cool_until_s = math.min(state.cool_until_s, now_s + report.cool_most_s)
    end
  end
  if mine ~= "" then
    owners[mine] = report.bounds and {
      label = report.label, bounds = report.bounds, until_s = now_s + report.lease_s, running = report.running,
      in_flight = report.in_flight, number = report.number, said = report.said + #report.spent,
      claim = before and before.claim, kept_s = kept_s or before and before.kept_s or -INF,
    } or nil
  end
  for _, one in ipairs(report.counted) do
    fill(one)
  end
  local me = owners[mine]
  if me and report.wanted then
    local claimed = me.claim
    me.claim = nil
    wait_s, more = decide(me, claimed)
  end
end
local _, _, rates = strictest()
if state.thin >= THIN_AFTER then
  thin_out(rates)
end
for unit in pairs(changed) do
  state.answers[unit] = redis.call("ZCARD", KEYS[3] .. unit)
end

local used, others, kept_s = {}, {}, KEPT_S
for place, rate in ipairs(rates) do
  used[place] = { rate.limit, rate.per_s, rate.unit, (used_of(rate)) }
  kept_s = math.max(kept_s, held_s(rate))
end
for name, owner in pairs(owners) do
  if name ~= mine then
    table.insert(others, { name, owner.label, owner.running })
  end
end
local until_s, why, is_common = state.cool_until_s, state.why, false
if common.grace_s > until_s then
  until_s, why, is_common = common.grace_s, common.why, true
end
if now_s > state.touched_s + TOUCH_S then
  state.touched_s = now_s
  for unit in pairs(state.answers) do
    redis.call("EXPIRE", KEYS[3] .. unit, math.ceil(kept_s + TOUCH_S))
  end
end
redis.call("SET", KEYS[1], cmsgpack.pack(common), "EX", math.ceil(kept_s))
redis.call("SET", KEYS[2], cmsgpack.pack(state), "EX", math.ceil(kept_s))
local cool_s = math.max(0, until_s - now_s)
return cmsgpack.pack({
  wait_s, more, used, others, cool_s, cool_s > 0 and why or "", cool_s > 0 and is_common, is_stranger, is_anew,
  common.id, common.seq, state.born,
})
