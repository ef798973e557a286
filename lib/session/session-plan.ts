/** What an attempt wants to commit of its session. Types only. */
import type { Settled } from './store.js'

/** `writes` belong to the new session if `newId` is given. */
export interface SessionPlan {
  readonly writes: Map<string, Settled | undefined>
  readonly replaces: boolean
  readonly endsOld: boolean
  readonly newId: string | undefined
}
