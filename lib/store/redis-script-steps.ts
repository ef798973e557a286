/**
 * The second half of the Redis store's script: what each step does with what redis-script.ts has read and compared. The
 * arguments are explained there.
 */

/** Who waits asks again much more often; one that does not is gone. */
const UNSEEN_MS = 1_000

export const STEPS = `
local steps = {}
steps.look, steps.stage, steps.commit = writing, writing, writing
-- 7 transaction, 8 idle, 9 absolute
function steps.publish()
  local tx, n = ARGV[7], commits()
  local header = call('HGET', S, '~' .. tx)
  if not header then return answer('none', n or 0) end
  local w = words(header)
  local by, parts = call('HGET', S, '^' .. tx), partsIn(call('HGET', S, '%' .. tx))
  local values = {}
  for _, part in ipairs(parts) do
    local name = part[2]
    values[name] = call('HMGET', S, '>' .. tx .. ' =' .. name, '>' .. tx .. ' $' .. name)
  end
  without(tx, header)
  counted(1)
  n = apply(n, tx, by, w[7] or '', w[6], parts, function(name) return values[name][1], values[name][2] end)
  if not string.find(w[7] or '', 'd', 1, true) then expire(ARGV[8], ARGV[9]) end
  return answer('done', n)
end
function steps.rollback()
  local tx, n = ARGV[7], commits()
  local header = call('HGET', S, '~' .. tx)
  if header then
    without(tx, header)
    if n then expire(ARGV[8], ARGV[9]) elseif not call('HGET', S, ':i') then call('DEL', S) end
  end
  return answer('done', n or 0)
end
-- a commit that was sent and not answered: it has, or it never will
function steps.forbid()
  local tx, n = ARGV[7], commits()
  if among(':d', tx) then return answer('committed', n or 0) end
  remember(':x', tx)
  if not n then
    call('HSET', S, ':e', epoch)
    if not call('HGET', S, ':i') then call('PEXPIRE', S, 600000) end
  end
  return answer('rolledBack', n or 0)
end
-- 7 holder, 8 for how long
function steps.reserve()
  if not commits() then return answer('gone') end
  local holder = words(call('HGET', S, ':h'))
  local line, isIn = {}, false
  for _, place in ipairs(words(call('HGET', S, ':q'))) do
    local who, seen = string.match(place, '^(.*):(%d+)$')
    if who == ARGV[7] then seen, isIn = now, true end
    if tonumber(seen) > now - ${UNSEEN_MS} then line[#line + 1] = who .. ':' .. string.format('%.0f', seen) end
  end
  if not isIn then line[#line + 1] = ARGV[7] .. ':' .. string.format('%.0f', now) end
  local isFree = not holder[1] or tonumber(holder[2]) <= now
  local isMine = isFree and string.match(line[1], '^(.*):') == ARGV[7]
  if isMine then table.remove(line, 1) end
  if #line > 0 then call('HSET', S, ':q', table.concat(line, ' ')) else call('HDEL', S, ':q') end
  if not isMine then return answer('reserved') end
  call('HSET', S, ':h', ARGV[7] .. ' ' .. string.format('%.0f', now + tonumber(ARGV[8])))
  return answer('done')
end
function steps.unreserve()
  if words(call('HGET', S, ':h'))[1] == ARGV[7] then call('HDEL', S, ':h') end
  return answer('done')
end
-- a session that nobody knows yet
function steps.uncreate()
  local n = commits()
  if n == 1 and among(':d', ARGV[7]) then drop() end
  return answer('done', 0)
end
-- 7 commit up to which all is known
function steps.fetch()
  local n = commits()
  if not n then return answer('none') end
  local since = tonumber(ARGV[7])
  local m = call('HMGET', S, ':c', ':t', ':k')
  local held, changed, names = {}, {}, {}
  for place, tx in ipairs(intents()) do held[place] = told(tx) end
  local hasNames = since == 0 or tonumber(m[3]) > since
  if n ~= since then
    for _, field in ipairs(call('HKEYS', S)) do
      if string.sub(field, 1, 1) == '=' then
        local name = string.sub(field, 2)
        if hasNames then names[#names + 1] = name end
        if since == 0 or tonumber(state(name).version) > since then shown(changed, name) end
      end
    end
  end
  return answer('done', n, now - m[1], now - m[2], hasNames and 1 or 0, held, names, changed)
end
-- 7 how long ago, 8 idle, 9 absolute
function steps.touch()
  if commits() then
    local at = now - tonumber(ARGV[7])
    if at > tonumber(call('HGET', S, ':t')) then call('HSET', S, ':t', string.format('%.0f', at)) end
    expire(ARGV[8], ARGV[9])
  end
  return answer('done')
end
-- 7 age of intents, 8 whether the server's set-up is looked at
function steps.sweep()
  local found = call('ZRANGEBYSCORE', I, '-inf', now - tonumber(ARGV[7]), 'WITHSCORES', 'LIMIT', 0, 100)
  local list = {}
  for place = 1, #found, 2 do list[#list + 1] = (now - tonumber(found[place + 1])) .. ' ' .. found[place] end
  return answer('done', list)
end
-- 7 intent that the session does not have
function steps.unlist()
  local tx = words(ARGV[7])[1]
  commits()
  if call('HEXISTS', S, '~' .. tx) == 0 then call('ZREM', I, ARGV[7]) end
  return answer('done')
end
-- 7 user
function steps.users()
  return answer('done', call('ZRANGEBYLEX', U, '[' .. ARGV[7] .. '/', '(' .. ARGV[7] .. '0'))
end
-- 7 user
function steps.tidy()
  if not commits() then call('ZREM', U, ARGV[7] .. '/' .. key) end
  return answer('done')
end
return steps[op]()
`
