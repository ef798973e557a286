/**
 * Cuts the text of a statement into tokens, with the boundaries of literals and comments where the server puts them.
 * Knows no grammar: which word is a keyword is for the reader to say.
 *
 * One pass, without recursion and without regular expressions over the text, so that a literal of megabytes or a
 * quote that is never closed costs no more than its length. Source of the rules: sql_lex.cc of MariaDB, and the
 * manuals' pages on comments, string literals and SQL modes. What is never closed reaches to the end of the text; the
 * server answers it with a syntax error.
 */

/** What the server that reads the text makes of it. */
export interface Dialect {
  /** `/*M! … *\/` is code, and `/*!50700 … *\/` to `/*!99999 … *\/` (MySQL's own later features) is none. */
  readonly mariadb: boolean
  /** As in executable comments: 101119 for 10.11.19. */
  readonly version: number
  /** SQL mode ANSI_QUOTES: `"x"` is a name. */
  readonly ansiQuotes: boolean
  /** False in SQL mode NO_BACKSLASH_ESCAPES. */
  readonly backslashEscapes: boolean
}

/** `word`: unquoted, keyword or name or number · `name`: quoted · `mark`: one character of punctuation. */
type TokenKind = 'word' | 'name' | 'string' | 'mark'

export interface Token {
  readonly kind: TokenKind
  /** A word in lower case, a name without its quotes, a mark; of a string what it says, once asked for. */
  readonly text: string
  /** A word as it was written. */
  readonly raw: string
}

const TAB = 9
const CARRIAGE_RETURN = 13
const SPACE = 32
const BANG = 33
const DOUBLE_QUOTE = 34
const HASH = 35
const DOLLAR = 36
const QUOTE = 39
const STAR = 42
const MINUS = 45
const SLASH = 47
const ZERO = 48
const NINE = 57
const BACKSLASH = 92
const UNDERSCORE = 95
const BACKTICK = 96
const DELETE = 127
const UPPER_M = 77

/** By character code below 128: 1 is part of a word. What is above belongs to words, too (no-break spaces included). */
const IN_WORD = new Uint8Array(128)
for (let code = 0; code < 128; code++) {
  const letter = String.fromCharCode(code)
  if (/[0-9a-z]/i.test(letter) || code === DOLLAR || code === UNDERSCORE) IN_WORD[code] = 1
}

/** One of each, by character code: a list of values is mostly commas. */
const MARKS: readonly Token[] = Array.from({ length: 128 }, (_, code) => {
  const text = String.fromCharCode(code)
  return Object.freeze({ kind: 'mark', text, raw: text })
})

const NOUGHT: Token = Object.freeze({ kind: 'word', text: '0', raw: '0' })
/** Stands for every other number: nobody asks which it is, and texts with values in them have thousands. */
const NUMBER: Token = Object.freeze({ kind: 'word', text: '1', raw: '1' })

export function lex(sql: string, dialect: Dialect): readonly Token[] {
  const tokens: Token[] = []
  const { length } = sql
  /** Inside an executable comment: its end is no token. */
  let inCode = false
  let at = 0
  while (at < length) {
    const code = sql.charCodeAt(at)
    if (code === SPACE || (code >= TAB && code <= CARRIAGE_RETURN)) {
      at += 1
    } else if (code >= 128 || IN_WORD[code] === 1) {
      const end = code <= NINE ? numberEnd(sql, at) : 0
      if (end !== 0) {
        tokens.push(code === ZERO && end === at + 1 ? NOUGHT : NUMBER)
        at = end
        continue
      }
      const start = at
      at = wordEnd(sql, start)
      const raw = sql.slice(start, at)
      tokens.push({ kind: 'word', text: raw.toLowerCase(), raw })
    } else if (code === QUOTE || code === DOUBLE_QUOTE) {
      const asName = code === DOUBLE_QUOTE && dialect.ansiQuotes
      const escapes = !asName && dialect.backslashEscapes
      const end = quotedEnd(sql, at, code, escapes)
      tokens.push(asName ? quotedName(sql, at, end) : new StringToken(sql, at, end, escapes))
      at = end
    } else if (code === BACKTICK) {
      const end = quotedEnd(sql, at, code, false)
      tokens.push(quotedName(sql, at, end))
      at = end
    } else if (code === HASH || (code === MINUS && startsLineComment(sql, at))) {
      at = endOfLine(sql, at)
    } else if (code === SLASH && sql.charCodeAt(at + 1) === STAR) {
      const opened = openComment(sql, at, dialect)
      inCode ||= opened.isCode
      at = opened.next
    } else if (inCode && code === STAR && sql.charCodeAt(at + 1) === SLASH) {
      inCode = false
      at += 2
    } else {
      tokens.push(MARKS[code] as Token)
      at += 1
    }
  }
  return tokens
}

/** Most literals are never looked at, and some are megabytes long. */
class StringToken implements Token {
  readonly kind = 'string'
  readonly raw = ''
  readonly #sql: string
  readonly #start: number
  readonly #end: number
  readonly #escapes: boolean

  constructor(sql: string, start: number, end: number, escapes: boolean) {
    this.#sql = sql
    this.#start = start
    this.#end = end
    this.#escapes = escapes
  }

  get text(): string {
    if (!this.#escapes) return unquoted(this.#sql, this.#start, this.#end)
    const inner = this.#sql.slice(this.#start + 1, this.#end - 1)
    const quote = this.#sql.charAt(this.#start)
    return inner.replace(/\\(.)|''|""/gs, (found: string, letter: string | undefined) => {
      if (letter !== undefined) return ESCAPED[letter] ?? letter
      return found.startsWith(quote) ? quote : found
    })
  }
}

/** `\%` and `\_` keep their backslash: they are for LIKE. */
const ESCAPED: Readonly<Record<string, string>> = Object.freeze({
  '0': '\0',
  b: '\b',
  n: '\n',
  r: '\r',
  t: '\t',
  Z: '\x1a',
  '%': '\\%',
  _: '\\_',
})

function wordEnd(sql: string, start: number): number {
  let at = start + 1
  while (at < sql.length) {
    const code = sql.charCodeAt(at)
    if (code < 128 && IN_WORD[code] !== 1) break
    at += 1
  }
  return at
}

/** Behind a word of digits only; 0 if it is none. */
function numberEnd(sql: string, start: number): number {
  let at = start + 1
  for (;;) {
    const code = sql.charCodeAt(at)
    if (code >= ZERO && code <= NINE) at += 1
    else return code >= 128 || IN_WORD[code] === 1 ? 0 : at
  }
}

/** Behind the closing quote; a doubled one does not close. */
function quotedEnd(sql: string, start: number, quote: number, escapes: boolean): number {
  let at = start + 1
  for (;;) {
    const code = sql.charCodeAt(at)
    if (Number.isNaN(code)) return sql.length
    if (escapes && code === BACKSLASH) at += 2
    else if (code !== quote) at += 1
    else if (sql.charCodeAt(at + 1) === quote) at += 2
    else return at + 1
  }
}

function quotedName(sql: string, start: number, end: number): Token {
  const text = unquoted(sql, start, end)
  return { kind: 'name', text, raw: text }
}

function unquoted(sql: string, start: number, end: number): string {
  const quote = sql.charAt(start)
  const closed = end - start > 1 && sql.charAt(end - 1) === quote
  const inner = sql.slice(start + 1, closed ? end - 1 : end)
  return inner.includes(quote) ? inner.replaceAll(quote + quote, quote) : inner
}

/** `--` is a comment only before a space, a control character or the end: `5--1` is 6. */
function startsLineComment(sql: string, at: number): boolean {
  if (sql.charCodeAt(at + 1) !== MINUS) return false
  const after = sql.charCodeAt(at + 2)
  return Number.isNaN(after) || after <= SPACE || after === DELETE
}

function endOfLine(sql: string, at: number): number {
  const found = sql.indexOf('\n', at)
  return found === -1 ? sql.length : found + 1
}

/** A comment that this server executes is entered; every other is passed over. */
function openComment(
  sql: string,
  at: number,
  dialect: Dialect,
): { readonly isCode: boolean; readonly next: number } {
  const ofMariadb = dialect.mariadb && sql.charCodeAt(at + 2) === UPPER_M
  const bang = ofMariadb ? at + 3 : at + 2
  if (sql.charCodeAt(bang) !== BANG) return { isCode: false, next: commentEnd(sql, at + 2) }
  const digits = digitsAt(sql, bang + 1)
  if (digits < 5) return { isCode: true, next: bang + 1 }
  const version = Number(sql.slice(bang + 1, bang + 1 + digits))
  const foreign = dialect.mariadb && !ofMariadb && version >= 50_700 && version <= 99_999
  if (version <= dialect.version && !foreign) return { isCode: true, next: bang + 1 + digits }
  return { isCode: false, next: nestingCommentEnd(sql, bang + 1) }
}

/** How many digits of a version stand here: five, or six. */
function digitsAt(sql: string, at: number): number {
  let count = 0
  while (count < 6) {
    const code = sql.charCodeAt(at + count)
    if (!(code >= ZERO && code <= NINE)) break
    count += 1
  }
  return count
}

function commentEnd(sql: string, from: number): number {
  const found = sql.indexOf('*/', from)
  return found === -1 ? sql.length : found + 2
}

/** Code that is passed over may have comments in it, one level deep. */
function nestingCommentEnd(sql: string, from: number): number {
  let at = from
  for (;;) {
    const end = sql.indexOf('*/', at)
    if (end === -1) return sql.length
    const inner = sql.indexOf('/*', at)
    if (inner === -1 || inner > end) return end + 2
    at = commentEnd(sql, inner + 2)
  }
}
