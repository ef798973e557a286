/**
 * What the page for people shows beside `stats()`: the same events by window of time, who lost to whom, and COMMITs in
 * doubt. Listens to the hub and keeps plain numbers; everything is put together when somebody looks. Decides nothing;
 * knows nothing of HTML.
 */
import type { EventHub, EventPayloads, TransactionFacts } from '../../events.js'
import type { Clock } from '../../transaction/clock.js'
import { boundedName, Recent } from '../counts.js'
import type { RequestOutcome, SettledOutcome } from '../stats.js'
import { PLACES_SUM, RollingWindow } from './rolling-window.js'
import { Span } from './span.js'
import { pairName, spotName, UNKNOWN_WINNER } from './spot.js'

export const WINDOWS = ['minute', 'hour', 'start'] as const
export type Window = (typeof WINDOWS)[number]

/** One COMMIT that was not answered. `outcome` undefined: it is not known yet. */
export interface Doubt {
  readonly time: string
  readonly id: string
  readonly route: string
  readonly outcome: SettledOutcome | undefined
  readonly doubtMs: number | undefined
}

const DOUBTS_MAX = 50
/** Requests between a lost attempt and their end; more than that many at once are not followed. */
const FOLLOWED_MAX = 10_000

type KeptDoubt = { -readonly [Name in keyof Omit<Doubt, 'time'>]: Doubt[Name] } & { readonly at: number }

export class Board {
  readonly #clock: Clock
  readonly #startedAt: number
  readonly #start = new Span(PLACES_SUM)
  readonly #seconds = new RollingWindow(1000)
  readonly #minutes = new RollingWindow(60_000)
  /** Only the second that passes is counted into; when it is over it is added to its minute and to the start. */
  #current = new Span(0)
  #second = -Infinity
  /** Milliseconds of a request that did not commit anything: lost attempts and waiting between them. */
  readonly #spentMs = new Map<string, number>()
  readonly #doubts = new Recent<KeptDoubt>(DOUBTS_MAX)
  #unsubscribe: (() => void)[]

  constructor(hub: EventHub, clock: Clock) {
    this.#clock = clock
    this.#startedAt = clock.now()
    this.#unsubscribe = [
      hub.on('commit', facts => this.#committed(facts)),
      hub.on('rollback', facts => this.#ended('rolledBack', facts)),
      hub.on('refused', facts => this.#ended('refused', facts)),
      hub.on('unknown', facts => {
        this.#ended('unknown', facts)
        this.#doubt(facts)
      }),
      hub.on('settled', facts => this.#settled(facts)),
      hub.on('conflict', facts => this.#lost(facts)),
      hub.on('rerun', facts => {
        this.#count(span => span.reruns++)
        if (this.#spentMs.has(facts.id)) this.#spend(facts.id, facts.waitMs)
      }),
    ]
  }

  /** Counts of a window, and its length so far in milliseconds. */
  window(window: Window): { readonly span: Span; readonly lengthMs: number } {
    const now = this.#clock.now()
    this.#turnTo(now)
    const age = Math.max(1, now - this.#startedAt)
    if (window === 'start') {
      const span = new Span(PLACES_SUM)
      span.addAll(this.#start)
      span.addAll(this.#current)
      return { span, lengthMs: age }
    }
    const rolling = window === 'minute' ? this.#seconds : this.#minutes
    // The step that is being counted is not over: what has passed of it is what counts.
    const length = rolling.stepMs * 59 + (now % rolling.stepMs)
    const span = rolling.sum(now)
    if (window === 'hour') span.addAll(this.#current)
    return { span, lengthMs: Math.min(age, length) }
  }

  /** Sixty steps, oldest first: seconds of the last minute, or minutes of the last hour. */
  series(window: Window): {
    readonly stepMs: number
    readonly endsAt: number
    readonly spans: (Span | undefined)[]
  } {
    const now = this.#clock.now()
    this.#turnTo(now)
    const rolling = window === 'minute' ? this.#seconds : this.#minutes
    const spans = rolling.series(now)
    if (window !== 'minute') {
      const last = new Span(PLACES_SUM)
      const counted = spans.at(-1)
      if (counted !== undefined) last.addAll(counted)
      last.addAll(this.#current)
      spans[spans.length - 1] = last
    }
    return { stepMs: rolling.stepMs, endsAt: this.#clock.wallNow(), spans }
  }

  /** COMMITs whose answer was lost, newest first. */
  doubts(): Doubt[] {
    const all = this.#doubts.list().reverse()
    return all.map(({ at, ...doubt }) => ({ time: new Date(at).toISOString(), ...doubt }))
  }

  /** Stops counting; what was counted can still be read. */
  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    this.#unsubscribe = []
  }

  #count(change: (span: Span) => void): void {
    this.#turnTo(this.#clock.now())
    change(this.#current)
  }

  #turnTo(now: number): void {
    const second = Math.floor(now / this.#seconds.stepMs)
    if (second === this.#second) return
    if (this.#second !== -Infinity) {
      this.#start.addAll(this.#current)
      this.#minutes.at(this.#second * this.#seconds.stepMs).addAll(this.#current)
    }
    this.#second = second
    this.#current = this.#seconds.at(now)
  }

  #ended(outcome: RequestOutcome, facts: TransactionFacts): void {
    this.#spentMs.delete(facts.id)
    this.#count(span => span.addEnd(outcome, facts.attempt))
  }

  #committed(facts: EventPayloads['commit']): void {
    const usefulMs = Math.max(0, facts.durationMs - (this.#spentMs.get(facts.id) ?? 0))
    this.#ended('committed', facts)
    const { commitMs } = facts
    this.#count(span => {
      span.usefulMs += usefulMs
      if (commitMs !== undefined) span.addCommitMs(commitMs)
    })
  }

  #lost({ id, route, conflict, attemptMs }: EventPayloads['conflict']): void {
    this.#spend(id, attemptMs)
    const { variable, table, winner = UNKNOWN_WINNER } = conflict
    const spot = spotName(conflict, route)
    const pair = pairName(route, winner)
    this.#count(span => {
      span.conflicts++
      span.wastedMs += attemptMs
      span.names('routes').add(route)
      span.names('pairs').add(pair)
      span.names('spots').add(spot)
      if (variable !== undefined) span.names('variables').add(variable)
      if (table !== undefined) span.names('tables').add(table)
    })
  }

  #spend(id: string, ms: number): void {
    const spent = this.#spentMs.get(id)
    if (spent === undefined && this.#spentMs.size >= FOLLOWED_MAX) return
    this.#spentMs.set(id, (spent ?? 0) + ms)
  }

  #doubt({ id, route }: TransactionFacts): KeptDoubt {
    const doubt: KeptDoubt = {
      at: this.#clock.wallNow(),
      id,
      route: boundedName(route),
      outcome: undefined,
      doubtMs: undefined,
    }
    this.#doubts.add(doubt)
    return doubt
  }

  #settled(facts: EventPayloads['settled']): void {
    const doubt = this.#doubts.list().find(({ id }) => id === facts.id) ?? this.#doubt(facts)
    doubt.outcome = facts.outcome
    doubt.doubtMs = facts.doubtMs
  }
}
