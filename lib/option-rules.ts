/**
 * What each option may be, as one table from path to rule, and the sentences a wrong one fails with. Looks at
 * one value at a time; what must hold between options is in options.ts. Knows nothing of what an option does
 * or defaults to.
 */
import { distance } from 'fastest-levenshtein'
import { SessionTxError } from './errors.js'
import { COOKIE_RULES, oneOf, type Rule } from './session/cookie-attributes.js'

/** The longest that a Node timer can be set to; a longer one fires at once. */
const TIMER_MS_MAX = 2_147_483_647
const CENTURY_MS = 36_525 * 86_400_000
const GIB = 1_073_741_824
const RETRIES_MAX = 10_000
const WAITING_MAX = 100_000
const TOKENS_MAX = 1_000_000

const retries = whole(0, RETRIES_MAX)
const delayMs = whole(0, TIMER_MS_MAX)
const limitMs = whole(1, TIMER_MS_MAX)
const ageMs = whole(1, CENTURY_MS)
const callback = must('a function', value => typeof value === 'function')
const yesOrNo = oneOf(true, false)

const RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ['pool', must('a mysql2 pool (it has getConnection and query)', isPool)],
  [
    'store',
    must(
      'a session store, like memoryStore() (legacyStore(store) wraps one of express-session or koa-session)',
      isStore,
    ),
  ],
  ['retry.retries', value => (typeof value === 'function' ? undefined : retries(value))],
  ['retry.deadlineMs', limitMs],
  ['retry.backoffBaseMs', delayMs],
  ['retry.backoffMaxMs', delayMs],
  ['retry.budget.capacity', number(1, TOKENS_MAX)],
  ['retry.budget.ratio', number(0, TOKENS_MAX)],
  ['retry.budget.perSecond', number(0, TOKENS_MAX)],
  ['retry.tickets.waitingMax', whole(1, WAITING_MAX)],
  ['retry.isRetryable', callback],
  ['retry.duplicateIsConflict', yesOrNo],
  ['retry.rehearse', yesOrNo],
  ['session.name', COOKIE_RULES.name],
  ['session.idleMs', orFalse(ageMs)],
  ['session.absoluteMs', orFalse(ageMs)],
  ['session.cookie.path', COOKIE_RULES.path],
  ['session.cookie.domain', COOKIE_RULES.domain],
  ['session.cookie.httpOnly', COOKIE_RULES.httpOnly],
  ['session.cookie.sameSite', COOKIE_RULES.sameSite],
  ['session.cookie.secure', COOKIE_RULES.secure],
  ['session.cookie.maxAge', ageMs],
  ['session.cookie.partitioned', COOKIE_RULES.partitioned],
  ['session.cookie.priority', COOKIE_RULES.priority],
  ['session.cookie.prefix', oneOf('host')],
  ['session.userVariable', must('the name of a session variable', isVariableName)],
  ['session.touchGranularityMs', delayMs],
  ['session.sizeBytesMax', whole(1, GIB)],
  ['keys', must('an array of at least one key (none empty), or an object with sign and verify', areKeys)],
  ['resolve', must('an object { variable: resolver }', isPlainObject)],
  ['skip', callback],
  ['isolation', oneOf('read committed', 'repeatable read', 'snapshot', 'serializable')],
  ['clientGone', oneOf('finish', 'rollback')],
  ['veto', callback],
  ['commitOnError', callback],
  ['readOnly', callback],
  ['commitRecord', oneOf('auto', 'always', 'off')],
  ['nonTransactionalTables', oneOf('refuse', 'warn')],
  ['strayQueries', oneOf('warn', 'refuse', 'ignore')],
  ['lockWaitMs', limitMs],
  ['acquireMs', limitMs],
  ['hold.requestBytesMax', whole(0, GIB)],
  ['hold.responseBytesMax', whole(0, GIB)],
])

/** What one route may set for itself: `transactional(handler, options)`. */
const ROUTE_RULES: ReadonlyMap<string, Rule> = new Map([
  ['retries', retries],
  ['isolation', oneOf('read committed', 'repeatable read', 'snapshot', 'serializable')],
  ['readOnly', yesOrNo],
])

/** Options that hold options. */
const GROUPS_OR_FALSE: ReadonlySet<string> = new Set(['retry.budget', 'retry.tickets'])
const GROUPS: ReadonlySet<string> = new Set([
  'retry',
  ...GROUPS_OR_FALSE,
  'session',
  'session.cookie',
  'hold',
])

/** Options whose value may hold a password: a string in their place is not repeated in the sentence. */
const SECRET: ReadonlySet<string> = new Set(['pool', 'store', 'keys'])

/** Every path that can be given, groups included. */
export const OPTION_PATHS: readonly string[] = Object.freeze([...RULES.keys(), ...GROUPS])

/**
 * Checks all that was given, in the order it was given.
 * @throws MISCONFIGURED with a sentence about the first thing wrong
 */
export function checkOptions(options: unknown): void {
  if (!isPlainObject(options)) {
    throw misconfigured(`the options must be a plain object, like { pool }, got ${describe(options, true)}`)
  }
  checkGroup(options, '')
}

/**
 * Checks a number of re-runs that was not known at start-up: what `retry.retries` returned as a function, or
 * was given to `transactional()`.
 * @returns the number
 * @throws MISCONFIGURED "`retry.retries` must be a whole number of 0 or more, got …"
 */
export function checkRetries(value: unknown, name = 'retry.retries'): number {
  refuseUnless(retries(value), name, value)
  return value as number
}

/**
 * Checks the arguments of `transactional()`, at start-up.
 * @throws MISCONFIGURED with a sentence about the first thing wrong
 */
export function checkRoute(handler: unknown, options: unknown): void {
  refuseUnless(callback(handler), 'transactional(handler)', handler)
  refuseUnless(isPlainObject(options) ? undefined : 'an object', 'transactional(handler, options)', options)
  for (const [name, value] of Object.entries(options as Readonly<Record<string, unknown>>)) {
    const rule = ROUTE_RULES.get(name)
    if (rule === undefined) {
      throw misconfigured(
        `unknown option \`${name}\` of transactional(); it knows ${[...ROUTE_RULES.keys()].join(', ')}`,
      )
    }
    if (value !== undefined) refuseUnless(rule(value), `transactional(handler, { ${name} })`, value)
  }
}

function checkGroup(group: Readonly<Record<string, unknown>>, prefix: string): void {
  for (const [name, value] of Object.entries(group)) {
    const path = prefix + name
    const rule = RULES.get(path)
    if (rule === undefined && !GROUPS.has(path)) {
      throw misconfigured(`unknown option \`${path}\`; did you mean \`${nearest(path)}\`?`)
    }
    if (value === undefined) continue
    if (rule !== undefined) refuseUnless(rule(value), path, value)
    else if (isPlainObject(value)) checkGroup(value, `${path}.`)
    else if (!(value === false && GROUPS_OR_FALSE.has(path))) {
      refuseUnless(GROUPS_OR_FALSE.has(path) ? 'an object or false' : 'an object', path, value)
    }
    if (path === 'resolve') checkResolvers(value as Readonly<Record<string, unknown>>)
  }
}

function checkResolvers(resolvers: Readonly<Record<string, unknown>>): void {
  for (const [variable, resolver] of Object.entries(resolvers)) {
    if (resolver !== undefined) refuseUnless(callback(resolver), `resolve.${variable}`, resolver)
  }
}

/**
 * The path with the fewest letters to change. Last names are compared, too: `retries` at the top is four
 * letters from `resolve`, but meant is `retry.retries`, which only stands in the wrong place (counted as one
 * letter).
 */
function nearest(path: string): string {
  const last = (dotted: string): string => dotted.slice(dotted.lastIndexOf('.') + 1).toLowerCase()
  const far = (option: string): number =>
    Math.min(distance(path.toLowerCase(), option.toLowerCase()), distance(last(path), last(option)) + 1)
  return OPTION_PATHS.reduce((best, option) => (far(option) < far(best) ? option : best))
}

function refuseUnless(mustBe: string | undefined, path: string, value: unknown): void {
  if (mustBe === undefined) return
  throw misconfigured(`\`${path}\` must be ${mustBe}, got ${describe(value, SECRET.has(path))}`)
}

function describe(value: unknown, isSecret: boolean): string {
  if (typeof value === 'string') return isSecret ? 'a string' : `'${value.slice(0, 40)}'`
  if (typeof value === 'function' || typeof value === 'symbol') return `a ${typeof value}`
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value !== 'object' || value === null) return String(value)
  if (Array.isArray(value)) return 'an array'
  return 'then' in value ? 'a promise' : 'an object'
}

function must(what: string, isSo: (value: unknown) => boolean): Rule {
  return value => (isSo(value) ? undefined : what)
}

function whole(min: number, max: number): Rule {
  return value => {
    if (!Number.isInteger(value) || (value as number) < min) return `a whole number of ${min} or more`
    return (value as number) > max ? `a whole number of ${max} or less` : undefined
  }
}

function number(min: number, max: number): Rule {
  return must(
    `a number from ${min} to ${max}`,
    value => typeof value === 'number' && value >= min && value <= max,
  )
}

function orFalse(rule: Rule): Rule {
  return value => {
    const mustBe = value === false ? undefined : rule(value)
    return mustBe === undefined ? undefined : `false or ${mustBe}`
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Of any realm. Instances of classes are not: their accessors would be overlooked, and so would a pool in our
 * place.
 */
function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  if (!isObject(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function isVariableName(value: unknown): boolean {
  return typeof value === 'string' && value !== ''
}

/** A pool of either flavour, or what carries one as mysql2's promise pool does. */
function isPool(value: unknown): boolean {
  const hasMethods = (pool: unknown): boolean =>
    isObject(pool) && typeof pool['getConnection'] === 'function' && typeof pool['query'] === 'function'
  return hasMethods(value) || (isObject(value) && hasMethods(value['pool']))
}

/** Enough to tell a store from the stores of other session packages, which have no versions. */
function isStore(value: unknown): boolean {
  return (
    isObject(value) && ['start', 'open', 'create', 'close'].every(name => typeof value[name] === 'function')
  )
}

function areKeys(value: unknown): boolean {
  if (Array.isArray(value))
    return value.length > 0 && value.every(key => typeof key === 'string' && key !== '')
  return isObject(value) && typeof value['sign'] === 'function' && typeof value['verify'] === 'function'
}

function misconfigured(sentence: string): SessionTxError {
  return new SessionTxError('MISCONFIGURED', sentence)
}
