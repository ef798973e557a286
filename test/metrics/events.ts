/**
 * What the layers would say, with everything filled in that a test does not care about. Not a test itself.
 */
import { EventHub, type EventName, type EventPayloads } from '../../lib/events.js'
import { type Gauges, Recorder } from '../../lib/metrics/recorder.js'
import type { Clock } from '../../lib/transaction/clock.js'

/** A clock that stands still until it is set. */
export class StillClock implements Clock {
  wallMs = Date.UTC(2026, 0, 2, 3, 4, 5, 6)
  now(): number {
    return this.wallMs
  }
  wallNow(): number {
    return this.wallMs
  }
  after(): never {
    throw new Error('a recorder waits for nothing')
  }
}

const facts = { id: 't1', route: '/cart/:item', attempt: 1 }
const complete = {
  begin: facts,
  conflict: {
    ...facts,
    conflict: { kind: 'variable', store: 'memory' },
    attemptMs: 0,
    decision: 'rerun',
  },
  rerun: { ...facts, attempt: 2, waitMs: 0, waitedFor: 'nothing' },
  commit: { ...facts, durationMs: 1, commitMs: undefined, resolved: [] },
  rollback: { ...facts, durationMs: 1, reason: 'error' },
  refused: { ...facts, durationMs: 1, code: 'RETRIES_EXHAUSTED' },
  unknown: { ...facts, durationMs: 1 },
  settled: { ...facts, outcome: 'committed', doubtMs: 5, late: false },
  commitsLost: { transactions: 1 },
  notRerunnable: { route: facts.route, reason: 'body' },
  stray: { route: facts.route, method: 'query' },
  escaped: { ...facts, reason: 'nonTransactional' },
  hookFailed: { id: facts.id, route: facts.route, hook: 'afterCommit', error: new Error('hook') },
  'session:missed': { session: 'abc' },
  'session:expired': { session: 'abc', reason: 'idle' },
  'session:destroyed': { session: 'abc' },
  'session:evicted': { session: 'abc' },
} satisfies EventPayloads

/** A hub with a recorder on it, and a short way to say what happens. */
export function recording(gauges?: Gauges) {
  const hub = new EventHub()
  const clock = new StillClock()
  const recorder = new Recorder(hub, clock, gauges)
  const happens = <Name extends EventName>(name: Name, given: Partial<EventPayloads[Name]> = {}): void =>
    hub.emit(name, { ...(complete[name] as EventPayloads[Name]), ...given })
  return { hub, clock, recorder, happens }
}
