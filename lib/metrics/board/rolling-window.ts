/**
 * The last sixty steps of time, each a span: the last minute by seconds, the last hour by minutes. Old steps are
 * dropped when somebody counts or looks; no timer. Knows nothing of what a span holds beside that spans add up.
 */
import { Span } from './span.js'

const STEPS = 60
const PLACES_STEP = 20
/** When steps are added up, and since the start. */
export const PLACES_SUM = 100

export class RollingWindow {
  readonly stepMs: number
  /** By number of the step since the clock's zero; at most {@link STEPS}, and none where nothing happened. */
  readonly #steps = new Map<number, Span>()

  constructor(stepMs: number) {
    this.stepMs = stepMs
  }

  /** The span that is being counted into now. */
  at(nowMs: number): Span {
    const step = Math.floor(nowMs / this.stepMs)
    let span = this.#steps.get(step)
    if (span === undefined) {
      this.#forget(step)
      span = new Span(PLACES_STEP)
      this.#steps.set(step, span)
    }
    return span
  }

  sum(nowMs: number): Span {
    const sum = new Span(PLACES_SUM)
    for (const span of this.series(nowMs)) if (span !== undefined) sum.addAll(span)
    return sum
  }

  /** Oldest first, the last one being counted still; undefined: nothing happened in that step. */
  series(nowMs: number): (Span | undefined)[] {
    const now = Math.floor(nowMs / this.stepMs)
    return Array.from({ length: STEPS }, (_, index) => this.#steps.get(now - STEPS + 1 + index))
  }

  #forget(now: number): void {
    for (const step of this.#steps.keys()) if (step <= now - STEPS) this.#steps.delete(step)
  }
}
