/**
 * A place in a row of tokens, and the few questions that readers of statements ask there. Knows how names and
 * brackets are written, and no statement.
 */
import type { Token } from './lexer.js'

/** As written; `schema` undefined: the connection's current one. */
export interface TableName {
  readonly schema: string | undefined
  readonly name: string
}

/** Stands for what is behind the last token, so that nobody has to ask whether there is one. */
const END: Token = Object.freeze({ kind: 'mark', text: '', raw: '' })

export class TokenCursor {
  readonly #tokens: readonly Token[]
  readonly #end: number
  at: number

  constructor(tokens: readonly Token[], start = 0, end = tokens.length) {
    this.#tokens = tokens
    this.#end = end
    this.at = start
  }

  get done(): boolean {
    return this.at >= this.#end
  }
  get token(): Token {
    return this.peek(0)
  }
  peek(ahead: number): Token {
    const at = this.at + ahead
    return at >= this.#end ? END : (this.#tokens[at] ?? END)
  }

  /** The word here, unquoted and in lower case; '' if it is something else. */
  get word(): string {
    return this.wordAt(0)
  }
  wordAt(ahead: number): string {
    const token = this.peek(ahead)
    return token.kind === 'word' ? token.text : ''
  }
  isMark(mark: string, ahead = 0): boolean {
    const token = this.peek(ahead)
    return token.kind === 'mark' && token.text === mark
  }

  /** Passes over whichever of these words come here. */
  skipWords(words: ReadonlySet<string>): void {
    while (words.has(this.word)) this.at += 1
  }
  /** Passes over this word, if it is here. */
  skipWord(word: string): boolean {
    if (this.word !== word) return false
    this.at += 1
    return true
  }
  skipMark(mark: string): boolean {
    if (!this.isMark(mark)) return false
    this.at += 1
    return true
  }

  /** At an opening bracket: behind the one that closes it. */
  skipBrackets(): void {
    let depth = 0
    while (!this.done) {
      if (this.isMark('(')) depth += 1
      else if (this.isMark(')')) depth -= 1
      this.at += 1
      if (depth === 0) return
    }
  }

  /** To the next of these words that is in no brackets, or to the end. */
  skipTo(words: ReadonlySet<string>): void {
    while (!this.done && !words.has(this.word)) {
      if (this.isMark('(')) this.skipBrackets()
      else this.at += 1
    }
  }

  /** `t`, `s.t`, `.t`, quoted or not; undefined if there is no name here. */
  tableName(): TableName | undefined {
    this.skipMark('.')
    const first = this.#namePart()
    if (first === undefined) return undefined
    if (!this.isMark('.') || !isNamePart(this.peek(1))) return { schema: undefined, name: first }
    this.at += 1
    return { schema: first, name: this.#namePart() ?? '' }
  }

  #namePart(): string | undefined {
    const { token } = this
    if (!isNamePart(token)) return undefined
    this.at += 1
    return token.raw
  }
}

function isNamePart({ kind }: Token): boolean {
  return kind === 'word' || kind === 'name'
}
