/**
 * Everything that the Redis store does to a session, as one Lua script: each call is one step that nobody else is in the
 * middle of. What the steps are for is in redis-claim.ts and redis-settling.ts; how they are sent, in redis-client.ts.
 *
 * KEYS  1 the session, a hash   2 journal of its shard, a hash   3 intents of the shard, by time   4 users of the shard
 * ARGV  1 what to do   2–4 what the caller knows of the journal: epoch, run, count   5 an epoch, if one has to begin
 *       6 key of the session, then what the step needs.
 *
 * Fields of a session (variables are named as in variable-name.ts, so none has a blank in it):
 *   :n commits   :e epoch   :c created   :t touched   :# variables   :k commit that last changed their names
 *   :u user      :d transactions that committed last   :x transactions that never will   :i transactions with intents
 *   :h holder and end of a reservation   :q who waits for one, first come first, and when it was seen last
 *   =name  `version stamp format route`, of a variable; $name its value
 *   ~tx    `slot seq thread server time user flags` of an intent; %tx its parts, `mode=name …`; ^tx its route
 *   >tx =name   format, `-` to remove it; >tx $name   value
 *
 * Modes of parts: w written, r only read and to stay as it is, n among the names, s seen and compared but not held. Of the
 * whole (`*`) and the set of names (`#`): c changed in part, w replaced or ended, r to stay.
 *
 * The journal counts the halves of a shard's commits: staged and published, or both at once. Each run has an id, the
 * server's own and a number of its own, since a server may be the master twice; the first step in a new run writes down at
 * which count the run before ended. Who remembers more than that knows that something was lost, and begins a new epoch:
 * sessions of an older one are gone. Compare Redis's replication ids.
 */
import { STEPS } from './redis-script-steps.js'

export const FORMAT = 1
/** Idle times of other processes may be under way; and whoever finds out says that it expired. */
const WELL_PAST_MS = 60_000
/** Each takes about 70: who has not asked since runs that are forgotten takes them for lost. */
const RUNS_CHARACTERS_MAX = 2_000

const JOURNAL = `
local S, J, I, U = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local op, key = ARGV[1], ARGV[6]
local call = redis.call
local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do list[#list + 1] = word end
  return list
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local server = string.match(call('INFO', 'server'), 'run_id:(%x+)')
local function isOfServer(run)
  return string.sub(run or '', 1, #server) == server
end
local j = call('HMGET', J, 'epoch', 'run', 'count', 'runs', 'format')
local epoch, run, count, lost = j[1], j[2], tonumber(j[3] or '0'), 0
if j[5] and tonumber(j[5]) > ${FORMAT} then return {'', 'format', j[5]} end
if not isOfServer(ARGV[3]) or (op == 'sweep' and ARGV[8] == '1') then
  local memory, persistence = call('INFO', 'memory'), call('INFO', 'persistence')
  local policy = string.match(memory, 'maxmemory_policy:(%S+)')
  local aof = string.match(persistence, 'aof_enabled:(%d)')
  if policy ~= 'noeviction' or aof ~= '1' then return {'', 'setup', policy, aof} end
end
if not epoch then
  epoch, run, count = ARGV[5], server .. '_' .. ARGV[5], 0
  call('HSET', J, 'epoch', epoch, 'run', run, 'count', 0, 'format', ${FORMAT})
  if ARGV[2] ~= '' then lost = math.max(tonumber(ARGV[4]), 1) end
else
  local runs = j[4] or ''
  if not isOfServer(run) then
    runs = string.match(string.sub(run .. ':' .. count .. ' ' .. runs, 1, ${RUNS_CHARACTERS_MAX}), '^.* ')
    run = server .. '_' .. ARGV[5]
    call('HSET', J, 'run', run, 'runs', runs)
  end
  if ARGV[2] == epoch and ARGV[3] ~= '' then
    local ended = count
    if ARGV[3] ~= run then ended = tonumber(string.match(runs, ARGV[3] .. ':(%d+)') or '0') end
    lost = math.max(tonumber(ARGV[4]) - ended, 0)
    if lost > 0 then
      epoch = ARGV[5]
      call('HSET', J, 'epoch', epoch)
    end
  end
end
local function counted(halves)
  count = call('HINCRBY', J, 'count', halves)
end
local function answer(...)
  return {epoch .. ' ' .. run .. ' ' .. count .. ' ' .. lost, ...}
end
`

const SESSION = `
local function intents()
  return words(call('HGET', S, ':i'))
end
local function member(tx, header)
  local w = words(header)
  return tx .. ' ' .. w[1] .. ' ' .. w[2] .. ' ' .. w[3] .. ' ' .. w[4] .. ' ' .. key
end
local function drop()
  for _, tx in ipairs(intents()) do call('ZREM', I, member(tx, call('HGET', S, '~' .. tx))) end
  local user = call('HGET', S, ':u')
  if user then call('ZREM', U, user .. '/' .. key) end
  call('DEL', S)
end
local function commits()
  local m = call('HMGET', S, ':e', ':n')
  if m[1] and m[1] ~= epoch then
    drop()
    return nil
  end
  return m[2] and tonumber(m[2]) or nil
end
local function among(field, tx)
  for _, one in ipairs(words(call('HGET', S, field))) do
    if one == tx then return true end
  end
  return false
end
local function remember(field, tx)
  local list = words(call('HGET', S, field))
  table.insert(list, 1, tx)
  call('HSET', S, field, table.concat(list, ' ', 1, math.min(#list, 8)))
end
local function expire(idleMs, absoluteMs)
  local ttl = tonumber(idleMs)
  if absoluteMs ~= '0' then
    local left = tonumber(absoluteMs) - (now - tonumber(call('HGET', S, ':c') or now))
    if ttl == 0 or left < ttl then ttl = math.max(left, 1) end
  end
  if ttl > 0 and not call('HGET', S, ':i') then call('PEXPIRE', S, ttl + ${WELL_PAST_MS}) else call('PERSIST', S) end
end
local function state(name)
  local header = call('HGET', S, '=' .. name)
  if not header then return nil end
  local version, stamp, format, by = string.match(header, '^(%S+) (%S+) (%S+) (.*)$')
  return {version = version, stamp = stamp, format = format, by = by}
end
local function shown(list, name)
  local found = state(name)
  if found then
    for _, text in ipairs({name, found.version, found.stamp, found.format, found.by}) do list[#list + 1] = text end
    list[#list + 1] = call('HGET', S, '$' .. name)
  else
    for _, text in ipairs({name, '0', '', '0', '', ''}) do list[#list + 1] = text end
  end
end
-- parts: list of {mode, name}; value(name) gives format and value of those that are written
local function apply(n, tx, by, flags, user, parts, value)
  local isNew = n == nil
  n = (n or 0) + 1
  if string.find(flags, 'd', 1, true) then
    drop()
    return n
  end
  local size, names = tonumber(call('HGET', S, ':#') or '0'), isNew
  for _, part in ipairs(parts) do
    if part[1] == 'w' and part[2] ~= '*' and part[2] ~= '#' then
      local name, format, text = part[2], value(part[2])
      local was = call('HEXISTS', S, '=' .. name) == 1
      if format == '-' then
        call('HDEL', S, '=' .. name, '$' .. name)
        if was then size, names = size - 1, true end
      else
        call('HSET', S, '=' .. name, n .. ' ' .. tx .. ' ' .. format .. ' ' .. by, '$' .. name, text)
        if not was then size, names = size + 1, true end
      end
    end
  end
  call('HSET', S, ':n', n, ':#', size, ':t', now)
  if isNew then call('HSET', S, ':e', epoch, ':c', now) end
  if names or string.find(flags, 'p', 1, true) then call('HSET', S, ':k', n) end
  if user ~= '=' then
    local before = call('HGET', S, ':u')
    if before then call('ZREM', U, before .. '/' .. key) end
    if user == '-' then call('HDEL', S, ':u') else
      call('HSET', S, ':u', user)
      call('ZADD', U, 0, user .. '/' .. key)
    end
  end
  remember(':d', tx)
  return n
end
local function without(tx, header)
  local list = {}
  for _, one in ipairs(intents()) do
    if one ~= tx then list[#list + 1] = one end
  end
  call('ZREM', I, member(tx, header))
  local fields = {'~' .. tx, '%' .. tx, '^' .. tx}
  for _, part in ipairs(words(call('HGET', S, '%' .. tx))) do
    local name = string.sub(part, 3)
    fields[#fields + 1] = '>' .. tx .. ' =' .. name
    fields[#fields + 1] = '>' .. tx .. ' $' .. name
  end
  for first = 1, #fields, 1000 do call('HDEL', S, unpack(fields, first, math.min(first + 999, #fields))) end
  if #list > 0 then call('HSET', S, ':i', table.concat(list, ' ')) else call('HDEL', S, ':i') end
end
local function partsIn(text)
  local parts = {}
  for _, part in ipairs(words(text)) do parts[#parts + 1] = {string.sub(part, 1, 1), string.sub(part, 3)} end
  return parts
end
local function told(tx)
  local w = words(call('HGET', S, '~' .. tx))
  return tx .. ' ' .. w[1] .. ' ' .. w[2] .. ' ' .. w[3] .. ' ' .. w[4] .. ' ' .. (now - tonumber(w[5]))
end
`

/** ARGV from 7: transaction, route, flags, user, idle, absolute, ref, assumed open, count of expectations, reservation (`*`: minds none), {mode, name, stamp} … , {name, format, value} … */
const WRITING = `
local function excludes(name, theirs, mine)
  if mine == 's' then return theirs == 'w' or (theirs == 'c' and name ~= '*') end
  return theirs ~= mine or theirs == 'w'
end
local function compare(n)
  local tx, flags, assumed, expected = ARGV[7], ARGV[9], ARGV[14], tonumber(ARGV[15])
  local mine, changed, at = {}, {}, 17
  local isWhole = string.find(flags, '[pd]') ~= nil
  mine['*'] = isWhole and 'w' or (string.find(flags, 'l', 1, true) and 's' or 'c')
  if string.find(flags, 'N', 1, true) then mine['#'] = 'r' elseif string.find(flags, 'S', 1, true) then mine['#'] = 's' end
  local names, size = 0, tonumber(call('HGET', S, ':#') or '0')
  for _ = 1, expected do
    local mode, name, stamp = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    at = at + 3
    local found = state(name)
    if mode == 'n' then
      if found then names = names + 1 end
      if stamp ~= '?' and (found and found.stamp or '-') ~= stamp then shown(changed, name) end
    else
      mine[name] = mode
      if (found and found.stamp or '-') ~= stamp then shown(changed, name) end
    end
  end
  local wanted = string.match(flags, '%d+')
  local namesChanged = wanted ~= nil and (names ~= tonumber(wanted) or size ~= names)
  local writes = {}
  for place = at, #ARGV, 3 do
    local name, format = ARGV[place], ARGV[place + 1]
    writes[#writes + 1] = name
    mine[name] = 'w'
    local was = call('HEXISTS', S, '=' .. name) == 1
    if was ~= (format ~= '-') then mine['#'] = mine['#'] == 'r' and 'w' or 'c' end
  end
  local blocking = {}
  for _, other in ipairs(intents()) do
    if other ~= tx then
      local blocks, onlySeen = false, true
      for _, part in ipairs(partsIn(call('HGET', S, '%' .. other))) do
        local name = part[2]
        if mine[name] and excludes(name, part[1], mine[name]) then
          blocks = true
          if mine[name] ~= 's' then onlySeen = false end
        end
      end
      if blocks and not (onlySeen and string.find(' ' .. assumed .. ' ', ' ' .. other .. ' ', 1, true)) then
        blocking[#blocking + 1] = told(other)
      end
    end
  end
  return mine, changed, namesChanged, blocking, writes, at
end
local function written(at)
  local values = {}
  for place = at, #ARGV, 3 do values[ARGV[place]] = {ARGV[place + 1], ARGV[place + 2]} end
  return function(name) return values[name][1], values[name][2] end
end
local function writing()
  local tx, by, flags, user, ref = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[13]
  local n = commits()
  if among(':x', tx) then return answer('refused') end
  if among(':d', tx) or call('HEXISTS', S, '~' .. tx) == 1 then return answer('done', n or 0) end
  local creates = string.find(flags, 'c', 1, true) ~= nil
  if creates and n ~= nil then return answer('exists') end
  if not creates and n == nil then return answer('gone') end
  local holder = words(call('HGET', S, ':h'))
  if op ~= 'look' and holder[1] and holder[1] ~= ARGV[16] and ARGV[16] ~= '*' and tonumber(holder[2]) > now then
    return answer('reserved')
  end
  local mine, changed, namesChanged, blocking, writes, at = compare(n)
  if #changed > 0 or namesChanged or #blocking > 0 then
    return answer('no', namesChanged and 1 or 0, blocking, changed)
  end
  if op == 'look' then return answer('done', n or 0) end
  local parts = {}
  for name, mode in pairs(mine) do
    if mode ~= 's' then parts[#parts + 1] = {mode, name} end
  end
  if op == 'commit' then
    counted(2)
    n = apply(n, tx, by, flags, user, parts, written(at))
    if not string.find(flags, 'd', 1, true) then expire(ARGV[11], ARGV[12]) end
    return answer('done', n)
  end
  counted(1)
  local texts = {}
  for place, part in ipairs(parts) do texts[place] = part[1] .. '=' .. part[2] end
  local header = ref .. ' ' .. now .. ' ' .. user .. ' ' .. flags
  call('HSET', S, '~' .. tx, header, '%' .. tx, table.concat(texts, ' '), '^' .. tx, by)
  if creates then call('HSET', S, ':e', epoch) end
  for place = at, #ARGV, 3 do
    local name = ARGV[place]
    call('HSET', S, '>' .. tx .. ' =' .. name, ARGV[place + 1], '>' .. tx .. ' $' .. name, ARGV[place + 2])
  end
  local list = intents()
  list[#list + 1] = tx
  call('HSET', S, ':i', table.concat(list, ' '))
  call('ZADD', I, now, member(tx, header))
  call('PERSIST', S)
  return answer('done', n or 0)
end
`

export const SCRIPT = [JOURNAL, SESSION, WRITING, STEPS].join('')
