/**
 * What ends a request's waiting early: its deadline, which also ends a running attempt, or a client that went away,
 * which only ends the waits between attempts and aborts the application's signal. One per request, shared by all its
 * attempts. Knows nothing of what is being waited for.
 */
import { SessionTxError } from '../errors.js'
import type { Clock, Timer } from './clock.js'

type Callback = (reason: SessionTxError) => void

export interface InterruptSetup {
  readonly clock: Clock
  readonly deadlineMs: number
  /** When the time began to count, by the clock; without it, now. */
  readonly startedAt?: number
  readonly transactionId: () => string
  /** Starts to watch the client, on the first wait only; calls `gone` when it went away, returns how to stop. */
  readonly watchClient?: ((gone: () => void) => () => void) | undefined
}

export class Interrupt {
  readonly deadlineAt: number
  readonly #setup: InterruptSetup
  readonly #timer: Timer | undefined
  #deadline: SessionTxError | undefined
  #clientGone: SessionTxError | undefined
  #onDeadline: Set<Callback> | undefined
  #onAny: Set<Callback> | undefined
  #controller: AbortController | undefined
  #unwatchClient: (() => void) | undefined

  constructor(setup: InterruptSetup) {
    const { clock, startedAt = clock.now(), deadlineMs } = setup
    this.#setup = setup
    this.deadlineAt = startedAt + deadlineMs
    const leftMs = this.deadlineAt - clock.now()
    this.#timer = leftMs > 0 ? clock.after(leftMs, () => this.#passDeadline()) : undefined
    if (leftMs <= 0) this.#passDeadline()
  }

  /** The deadline, once it has passed: nothing may go on. */
  get reason(): SessionTxError | undefined {
    return this.#deadline
  }

  /** Why nobody waits for another attempt any more: the deadline, or the client went away. */
  get waitingEnded(): SessionTxError | undefined {
    if (this.#deadline === undefined && this.#clientGone === undefined) this.#watchClient()
    return this.#deadline ?? this.#clientGone
  }

  /** The client went away before it was answered. */
  get clientIsGone(): boolean {
    this.#watchClient()
    return this.#clientGone !== undefined
  }

  /** For the application: aborts at the deadline and when the client goes. Made on first use. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    const reason = this.waitingEnded
    if (reason !== undefined) this.#controller.abort(reason)
    return this.#controller.signal
  }

  #passDeadline(): void {
    const message = `the request and its re-runs took longer than retry.deadlineMs (${this.#setup.deadlineMs} ms)`
    const reason = new SessionTxError('DEADLINE', message, { transactionId: this.#setup.transactionId() })
    this.#deadline = reason
    const callbacks = [...(this.#onDeadline ?? []), ...(this.#onAny ?? [])]
    this.#onDeadline = undefined
    this.#onAny = undefined
    this.#controller?.abort(reason)
    for (const callback of callbacks) callback(reason)
  }

  #watchClient(): void {
    if (this.#unwatchClient !== undefined || this.#setup.watchClient === undefined) return
    this.#unwatchClient = () => {}
    this.#unwatchClient = this.#setup.watchClient(() => {
      if (this.#clientGone !== undefined || this.#deadline !== undefined) return
      const message = 'the client went away; no further attempt is made for it'
      const reason = new SessionTxError('CONFLICT', message, { transactionId: this.#setup.transactionId() })
      this.#clientGone = reason
      const callbacks = this.#onAny ?? []
      this.#onAny = undefined
      this.#controller?.abort(reason)
      for (const callback of callbacks) callback(reason)
    })
  }

  /** Calls back once when waiting for a further attempt has become pointless; returns how to stop listening. */
  onWaitingEnd(callback: Callback): () => void {
    const ended = this.waitingEnded
    if (ended !== undefined) {
      callback(ended)
      return () => {}
    }
    this.#onAny ??= new Set()
    this.#onAny.add(callback)
    return () => this.#onAny?.delete(callback)
  }

  /** Settles as `work` does, or rejects at the deadline; `work` itself goes on unheard. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#deadline !== undefined) {
        reject(this.#deadline)
        return
      }
      this.#onDeadline ??= new Set()
      const waiting = this.#onDeadline
      waiting.add(reject)
      work.then(
        value => {
          waiting.delete(reject)
          resolve(value)
        },
        (error: unknown) => {
          waiting.delete(reject)
          reject(error)
        },
      )
    })
  }

  /** Waits between two attempts; rejects when that became pointless. */
  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#setup.clock.after(delayMs, () => {
        stop()
        resolve()
      })
      const stop = this.onWaitingEnd(reason => {
        timer.cancel()
        reject(reason)
      })
    })
  }

  /** The request is over: nothing is waited for any more. */
  end(): void {
    this.#timer?.cancel()
    this.#unwatchClient?.()
    this.#onDeadline = undefined
    this.#onAny = undefined
  }
}
