/**
 * Words that say the same of a text wherever in it they stand: one look at each token. Knows nothing of where
 * statements begin. Reads the tokens by index, because this is half of what a new text costs.
 */
import type { Token } from './lexer.js'

interface Telltales {
  /** A lock, a user variable or the like may be left behind. */
  dirties: boolean
  /** NOWAIT, WAIT n or SKIP LOCKED. */
  nowait: boolean
  /** It locks rows, stores what it reads, or reads a derived table. */
  notPlain: boolean
  /** It calls what may be somebody's stored function. */
  callsUnknown: boolean
}

const DERIVED = new Set(['select', 'with', 'values'])

export function telltales(tokens: readonly Token[]): Telltales {
  const found: Telltales = { dirties: false, nowait: false, notPlain: false, callsUnknown: false }
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at] as Token
    if (token.kind === 'mark') {
      if (token.text === ',') lookForDerived(tokens, at, found)
      else if (token.text === '(') found.callsUnknown ||= mayBeStored(tokens[at - 1], tokens[at - 2])
      else if (token.text === ':' && is(tokens[at + 1], 'mark', '=')) found.dirties = true
    } else if (token.kind === 'word' && mayTell(token.text)) {
      lookAt(token.text, tokens, at, found)
    }
  }
  return found
}

/** By its first letter: comparing each word with each of ours is what would cost here. */
function mayTell(word: string): boolean {
  return 'ifljnwsg'.includes(word.charAt(0))
}

function lookAt(word: string, tokens: readonly Token[], at: number, found: Telltales): void {
  const next = tokens[at + 1]
  switch (word) {
    case 'into':
      found.notPlain = true
      if (is(next, 'mark', '@')) found.dirties = true
      return
    case 'for':
      if (is(next, 'word', 'update') || is(next, 'word', 'share')) found.notPlain = true
      return
    case 'lock':
      if (is(next, 'word', 'in')) found.notPlain = true
      return
    case 'nowait':
      found.nowait = true
      return
    case 'skip':
      if (is(next, 'word', 'locked')) found.nowait = true
      return
    case 'wait':
      if (is(next, 'mark', '?') || (next?.kind === 'word' && /^\d/.test(next.text))) found.nowait = true
      return
    case 'get_lock':
      if (is(next, 'mark', '(')) found.dirties = true
      return
    case 'from':
    case 'join':
    case 'straight_join':
    case 'lateral':
      lookForDerived(tokens, at, found)
      return
    default:
      if (word.startsWith('service_get_')) found.dirties = true
  }
}

/** Where a table can stand there is a subquery instead. */
function lookForDerived(tokens: readonly Token[], before: number, found: Telltales): void {
  let at = before + 1
  while (is(tokens[at], 'mark', '(')) at += 1
  const token = tokens[at]
  if (at > before + 1 && token?.kind === 'word' && DERIVED.has(token.text)) found.notPlain = true
}

/** Words that come before a parenthesis without being somebody's stored function, which may write. The rest: who knows. */
const HARMLESS = new Set(
  (
    'select from where and or not in on as by having case when then else between like using join over values exists all any ' +
    'count sum min max avg coalesce ifnull nullif if concat concat_ws lower upper length char_length trim substring left right ' +
    'replace round floor ceil abs mod greatest least date year month day now utc_timestamp current_timestamp date_format ' +
    'timestampdiff date_add date_sub unix_timestamp from_unixtime cast convert json_extract json_value group_concat ' +
    'connection_id database last_insert_id distinct row_number rank'
  ).split(' '),
)

/** From this token on it calls what may be somebody's stored function. */
export function callsUnknown(tokens: readonly Token[], from: number): boolean {
  for (let at = from; at < tokens.length; at++)
    if (is(tokens[at], 'mark', '(') && mayBeStored(tokens[at - 1], tokens[at - 2])) return true
  return false
}

function mayBeStored(called: Token | undefined, before: Token | undefined): boolean {
  if (called === undefined || called.kind === 'mark' || called.kind === 'string') return false
  return called.kind === 'name' || is(before, 'mark', '.') || !HARMLESS.has(called.text)
}

function is(token: Token | undefined, kind: Token['kind'], text: string): boolean {
  return token !== undefined && token.kind === kind && token.text === text
}
