/**
 * HTML as a tagged template: whatever is put in is escaped, unless it is HTML already. Knows nothing of what is shown.
 */

/** Text that is HTML; only this file makes it. */
export class Html {
  readonly #text: string
  constructor(text: string) {
    this.#text = text
  }
  toString(): string {
    return this.#text
  }
}

type Part = Html | string | number | readonly Html[]

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

export function html(texts: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(texts.map((text, index) => text + shown(parts[index])).join(''))
}

function shown(part: Part | undefined): string {
  if (part === undefined) return ''
  if (part instanceof Html) return part.toString()
  if (Array.isArray(part)) return part.join('')
  return String(part).replaceAll(/[&<>"']/g, character => ESCAPES[character] ?? '')
}

/** A sentence with code in backquotes. */
export function withCode(sentence: string): Html {
  const pieces = sentence.split('`')
  return html`${pieces.map((piece, index) => (index % 2 === 1 ? html`<code>${piece}</code>` : html`${piece}`))}`
}
