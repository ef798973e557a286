/**
 * What a session's cookie may look like: its attributes, which values each can have, and what browsers demand of them
 * together. Asked at start-up of the options and at run time of what a handler assigns. Knows no HTTP and no session.
 */

/** As the `cookies` package names them; `secure: 'auto'` follows the connection. */
export interface CookieAttributes {
  readonly path: string
  readonly domain: string | undefined
  readonly httpOnly: boolean
  readonly sameSite: 'strict' | 'lax' | 'none' | boolean
  readonly secure: 'auto' | boolean
  /** Milliseconds; undefined: until the browser is closed. */
  readonly maxAge: number | undefined
  readonly partitioned: boolean | undefined
  readonly priority: 'low' | 'medium' | 'high' | undefined
}

/** The cookie as it is configured: its name with the prefix, and the attributes of those sessions that say nothing else. */
export interface ConfiguredCookie extends CookieAttributes {
  readonly name: string
}

/** Says what a value must be, or undefined if it is that. */
export type Rule = (value: unknown) => string | undefined

// The three as in the `cookies` package, which would throw a TypeError only when the first cookie is set.
const NAME = /^[\w!#$%&'*+.^`|~-]{1,128}$/
const PATH = /^\/[ -:=-~]*$/
const DOMAIN = /^\.?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i

export const COOKIE_RULES = Object.freeze({
  name: matching(NAME, 'a cookie name: letters, digits, - and _'),
  path: matching(PATH, "a path that begins with a slash, like '/'"),
  domain: matching(DOMAIN, "a domain, like 'example.com'"),
  httpOnly: oneOf(true, false),
  sameSite: oneOf('strict', 'lax', 'none', true, false),
  secure: oneOf('auto', true, false),
  partitioned: oneOf(true, false),
  priority: oneOf('low', 'medium', 'high'),
} satisfies Record<string, Rule>)

function matching(pattern: RegExp, what: string): Rule {
  return value => (typeof value === 'string' && pattern.test(value) ? undefined : what)
}

export function oneOf(...allowed: readonly (string | boolean)[]): Rule {
  const names = allowed.map(value => (typeof value === 'string' ? `'${value}'` : String(value)))
  const what = names.length === 1 ? names.join() : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`
  return value => (allowed.includes(value as string | boolean) ? undefined : what)
}

/**
 * What browsers demand: they drop any other cookie without a word, and every request is a new session. Prefixes count in
 * any case and also when they were written into the name. Source: RFC 6265bis, 4.1.3.
 *
 * @param named how an attribute is called in the sentence that is returned
 */
export function objectionTo(
  cookie: ConfiguredCookie,
  named: (attribute: string) => string,
): string | undefined {
  const { name, path, domain, secure, sameSite, partitioned } = cookie
  const isHost = /^__host-/i.test(name)
  const [needsSecure] = [
    isHost && 'a `__Host-` cookie',
    /^__secure-/i.test(name) && 'a `__Secure-` cookie',
    sameSite === 'none' && `\`${named('sameSite')}: 'none'\``,
    partitioned === true && `\`${named('partitioned')}\``,
  ].filter(reason => reason !== false)
  if (isHost && path !== '/') return `a \`__Host-\` cookie needs \`${named('path')}\` '/', got '${path}'`
  if (isHost && domain !== undefined)
    return `a \`__Host-\` cookie must not have \`${named('domain')}\`, got '${domain}'`
  if (needsSecure !== undefined && secure === false)
    return `${needsSecure} needs \`${named('secure')}\` to be true or 'auto', got false`
  return undefined
}
