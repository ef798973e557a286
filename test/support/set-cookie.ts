/** What an answer's Set-Cookie headers say. Judges nothing. */
import type { Answer } from './client.js'

export interface SetCookie {
  readonly value: string
  /** Names in lower case; true where an attribute has no value. */
  readonly attributes: Readonly<Record<string, string | true>>
  /** Milliseconds from now until it ends; undefined: with the browser. */
  readonly lastsMs: number | undefined
}

/** The cookie of that name, or undefined if the answer sets none. */
export function setCookie({ headers }: Answer, name = 'sid'): SetCookie | undefined {
  const lines = (headers['set-cookie'] ?? []).filter(line => line.startsWith(`${name}=`))
  if (lines.length > 1) throw new Error(`${lines.length} cookies of the name ${name}`)
  const [line] = lines
  if (line === undefined) return undefined
  const [pair = '', ...rest] = line.split('; ')
  const attributes = Object.fromEntries(
    rest.map(part => {
      const [attribute = '', value] = part.split('=')
      return [attribute.toLowerCase(), value ?? true] as const
    }),
  )
  const { expires } = attributes
  const lastsMs = typeof expires === 'string' ? Date.parse(expires) - Date.now() : undefined
  return { value: pair.slice(name.length + 1), attributes, lastsMs }
}

/** Whether it lasts that long, as far as a header in whole seconds and a slow machine can tell. */
export function lasts(cookie: SetCookie | undefined, ms: number): boolean {
  const { lastsMs } = cookie ?? {}
  return lastsMs !== undefined && lastsMs <= ms && lastsMs > ms - 30_000
}
