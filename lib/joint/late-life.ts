/**
 * A request whose handler has asked for nothing yet. Its life (life.ts) begins when it does, as if it had begun with the
 * request: the handler that is running is its first attempt. One that never asks has nothing to commit, and is counted.
 * Most requests of an application may be such, and all that a life is made of was twice what Koa costs.
 */
import { here, Latecomer, runAs } from '../transaction/current.js'
import type { Due } from '../transaction/deadlines.js'
import { firstOrder } from '../transaction/retry.js'
import { live, overAtOnce } from './life.js'
import type { JointParts, JointRequest, RunningAttempt } from './request.js'
import { noteWon } from './route-heat.js'

interface LateRequest<T> extends JointRequest<T> {
  /** The attempt that has begun last. */
  readonly latest: RunningAttempt | undefined
  /** The handler returned, and no policy of the application has to be asked whether that is to be stored. */
  readonly isPlainSuccess: boolean
}

const NONE: readonly string[] = Object.freeze([])

/** Nothing has to be done, and nobody has to be told, before the handler runs. */
export function mayBeginLate({ store, heat, events, tracing, rehearse, clientGone }: JointParts): boolean {
  if (store.capability !== 'local' || rehearse || clientGone === 'rollback') return false
  return heat.isCold && tracing?.isIdle !== false && !events.hears('begin')
}

export class LateLife<T> extends Latecomer implements Due {
  readonly startedAt: number
  readonly deathsBefore: number
  readonly #request: LateRequest<T>
  readonly #parts: JointParts
  readonly #ended: () => void
  /** Where the life would be lived if it had begun at once: timers and connections that outlast it must not keep us. */
  readonly #outside = here()
  #attempt: RunningAttempt | undefined
  #running: Promise<T> | undefined
  #onRunning: ((running: Promise<T>) => void) | undefined
  #isOver = false
  #resolve: (value: T) => void = nothing
  #reject: (error: unknown) => void = nothing

  constructor(request: LateRequest<T>, parts: JointParts) {
    super()
    this.#request = request
    this.#parts = parts
    this.#ended = parts.activity.begin()
    this.startedAt = parts.environment.clock.now()
    this.deathsBefore = parts.tombstones.deaths
  }

  get deadlineAt(): number {
    return this.startedAt + this.#parts.deadlineMs
  }

  /**
   * Runs the handler.
   * @throws as {@link live}
   */
  run(handler: () => Promise<T>): Promise<T> {
    this.#parts.deadlines.add(this)
    const answered = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    const running = runAs(this, handler)
    this.#running = running
    this.#onRunning?.(running)
    running.then(
      value => this.#returned(value),
      () => this.begin(),
    )
    return answered
  }

  /** The run of the handler that is under way, as the work of the first attempt. */
  get running(): Promise<T> {
    return this.#running ?? new Promise(resolve => (this.#onRunning = resolve))
  }

  /** Somebody wants the transaction. @returns its first attempt, whatever has become of it since */
  begin(): RunningAttempt {
    if (this.#attempt !== undefined) return this.#attempt
    if (this.#isOver) overAtOnce(this.#request, this.#parts, this)
    else {
      const lived = runAs(this.#outside, () => live(this.#request, this.#parts, this))
      lived.then(this.#resolve, this.#reject)
    }
    const { latest } = this.#request
    if (latest === undefined) throw new TypeError('the life of a request began without an attempt')
    this.#attempt = latest
    if (!this.#isOver) this.#leave()
    return latest
  }

  passDeadline(): void {
    this.begin()
  }

  #returned(value: T): void {
    if (this.#attempt !== undefined) return
    const { environment, events, budget, heat, nextId } = this.#parts
    const request = this.#request
    if (!request.isPlainSuccess) {
      this.begin()
      return
    }
    this.#isOver = true
    budget?.earn()
    if (!heat.isCold) noteWon(request, heat, firstOrder(request.retries, NONE))
    const id = nextId()
    const route = request.route()
    const durationMs = environment.clock.now() - this.startedAt
    events.emit('commit', { id, route, attempt: 1, durationMs, commitMs: undefined, resolved: NONE })
    request.ended?.()
    this.#leave()
    this.#resolve(value)
  }

  #leave(): void {
    this.#parts.deadlines.remove(this)
    this.#ended()
  }
}

function nothing(): void {}
