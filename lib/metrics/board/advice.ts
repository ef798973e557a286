/**
 * What to do about a hot spot, in one sentence that names the remedy in this library. Pure: counts in, sentences out.
 * Knows nothing of how they are shown.
 */
import type { ConflictKind } from '../../errors.js'
import type { Stats } from '../stats.js'
import type { Span } from './span.js'
import { type Spot, spotOf, UNKNOWN_WINNER } from './spot.js'

/** A sentence with code in backquotes. `percent`: conflicts of the spot by requests; undefined: not about a spot. */
interface Advice {
  readonly percent: number | undefined
  readonly sentence: string
}

const SPOTS_MAX = 10

/** Most conflicts first; then what the counters since the start say. */
export function advice(span: Span, stats: Stats): Advice[] {
  const spots = span.names('spots').list(SPOTS_MAX)
  return [
    ...spots.map(({ name, count }) => {
      const percent = (100 * count) / Math.max(1, span.ended)
      return { percent, sentence: sentenceOf(spotOf(name), percent) }
    }),
    ...generalAdvice(stats).map(sentence => ({ percent: undefined, sentence })),
  ]
}

function sentenceOf(spot: Spot, percent: number): string {
  const { what, loser, winner, kind } = spot
  const share = percent < 0.1 ? 'fewer than 0.1 %' : `${percent.toFixed(percent < 10 ? 1 : 0)} %`
  const where =
    winner === UNKNOWN_WINNER
      ? `in \`${loser}\``
      : winner === loser
        ? `between requests of \`${loser}\``
        : `between \`${loser}\` and \`${winner}\``
  const subject = what === '' ? NAMELESS[kind] : `\`${what}\` conflicts`
  return `${subject} ${where} in ${share} of requests: ${REMEDIES[kind](spot)}.`
}

/** What a conflict is called that has neither variable nor table. */
const NAMELESS: Readonly<Record<ConflictKind, string>> = {
  variable: 'a session variable conflicts',
  read: 'a variable that was read conflicts',
  names: 'the set of variable names conflicts',
  session: 'a session was replaced, destroyed or regenerated',
  snapshot: 'session and rows were seen at different moments',
  stale: 'a cached session was old',
  row: 'a row conflicts',
  deadlock: 'deadlocks happen',
  lockWait: 'a row lock was not granted in time',
  certification: 'another node of the cluster had changed the row',
  write: 'a write conflicts',
  definition: 'a table changed its definition',
  duplicate: 'a duplicate key is met',
  connection: 'connections were lost',
  unavailable: 'no connection was to be had',
  requested: 'the application asked for a re-run',
  rehearsal: 'handlers were rehearsed',
}

const REMEDIES: Readonly<Record<ConflictKind, (spot: Spot) => string>> = {
  variable: ({ what, loser, winner }) =>
    winner === UNKNOWN_WINNER
      ? `give it a resolver, \`resolve: { ${key(what)}: … }\`, or split it where routes use different parts of it`
      : loser === winner
        ? `merge its changes with a resolver, \`resolve: { ${key(what)}: resolvers.counter }\` for a number, ` +
          '`resolvers.union` or `resolvers.append` for a list'
        : `split it into one variable for each, or use \`resolve: { ${key(what)}: resolvers.disjoint }\``,
  read: () => 'call `tx.readCurrent` only for what must not change until the commit',
  names: () =>
    'do not list the session’s names where parallel requests add some; read the variables you need',
  session: () => 'nothing to do for single ones; call `regenerate()` at login only',
  snapshot: () => 'nothing to do, it costs one re-run; send the first statement before the session is read',
  stale: () => 'let requests of one session reach one process, or make `cache` of the store smaller',
  row: () =>
    'change the row with one `UPDATE … SET n = n - 1 WHERE …`, or read it with `SELECT … FOR UPDATE`',
  deadlock: () => 'lock rows in one order everywhere, for example sorted by their key',
  lockWait: () =>
    'do slow work before the first statement or in `tx.afterCommit`; `lockWaitMs` is how long a lock may take',
  certification: () => 'send requests that change the same rows to one node',
  write: () => 'read the row with `SELECT … FOR UPDATE`',
  definition: () => 'nothing to do: a migration ran',
  duplicate: () => 'use `INSERT … ON DUPLICATE KEY UPDATE`',
  connection: () => 'look at the server, and at what stands between it and the pool',
  unavailable: () => 'compare `connectionLimit` of the pool with the server’s `max_connections`',
  requested: () => 'look at what calls `tx.conflict()`, and at `retry.isRetryable`',
  rehearsal: () => 'switch `retry.rehearse` off in production',
}

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name)
}

function generalAdvice(stats: Stats): string[] {
  const { refused, stray, notRerunnable, escaped, hooksFailed, commitsLost, sessions } = stats
  const all: (readonly [count: number | undefined, sentence: (count: string) => string])[] = [
    [
      refused.BUDGET_EXHAUSTED,
      n =>
        `${n} requests were refused because the budget for re-runs was spent: remove the hot spots above before you raise \`retry.budget\`.`,
    ],
    [
      refused.QUEUE_FULL,
      n =>
        `${n} requests found the queue full: make the handlers of the hot spot shorter, or raise \`retry.tickets.waitingMax\`.`,
    ],
    [
      refused.STORE_UNAVAILABLE,
      n =>
        `${n} requests got no connection within \`acquireMs\`: raise \`connectionLimit\` of the pool, or shorten what runs between the first statement and the commit.`,
    ],
    [
      stray.total,
      n =>
        `${n} statements used the pool directly inside a request and are repeated with each attempt: use \`ctx.tx.query\`, or give your query builder \`ambientPool(pool)\`.`,
    ],
    [
      notRerunnable.position,
      n =>
        `${n} requests could not have run again because session-tx did not find what stands below it: mount it with \`app.use(tx)\`, or wrap the handler in \`tx.transactional(handler)\`.`,
    ],
    [
      notRerunnable.body,
      n =>
        `${n} requests could not have run again because of their large body: raise \`hold.requestBytesMax\`.`,
    ],
    [
      escaped.total,
      n =>
        `${n} attempts had an effect that cannot be rolled back: convert the table with \`ALTER TABLE … ENGINE = InnoDB\`, and look for procedures that commit.`,
    ],
    [
      hooksFailed,
      n => `${n} hooks failed after their commit: what must not be lost belongs into an outbox row.`,
    ],
    [
      commitsLost,
      n =>
        `${n} commits are gone from the database: it was restored, or failed over; compare it with what you have sent out.`,
    ],
    [
      sessions.evicted,
      n =>
        `${n} live sessions were thrown out for lack of room: raise \`sessionsMax\` and \`bytesMax\` of \`memoryStore\`, or use \`mysqlStore()\`.`,
    ],
  ]
  return all.flatMap(([count = 0, sentence]) => (count > 0 ? [sentence(count.toLocaleString('en'))] : []))
}
