/** Names that exist as types only, in tables that the compiler keeps complete. */
import type { EventName } from '../../lib/events.js'
import type { SessionMembers } from '../../lib/session/session-members.js'

const events: Record<EventName, true> = {
  begin: true,
  conflict: true,
  rerun: true,
  commit: true,
  rollback: true,
  refused: true,
  unknown: true,
  settled: true,
  commitsLost: true,
  notRerunnable: true,
  stray: true,
  escaped: true,
  hookFailed: true,
  'session:missed': true,
  'session:expired': true,
  'session:destroyed': true,
  'session:evicted': true,
}

const members: Record<keyof SessionMembers, true> = {
  id: true,
  externalKey: true,
  isNew: true,
  populated: true,
  maxAge: true,
  cookie: true,
  regenerate: true,
  destroy: true,
  touch: true,
  save: true,
  manuallyCommit: true,
  reload: true,
  toJSON: true,
  inspect: true,
}

export const eventNames: readonly string[] = Object.keys(events)
export const sessionMembers: readonly string[] = Object.keys(members)
