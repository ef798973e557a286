/** What the Redis store's script answers, read. Knows the form of answers and of nothing else. */
import type { DecisionRef } from '../transaction/announced-decision.js'
import { RememberedVariable } from './remembered-session.js'
import { variableOf } from './variable-name.js'

/** Writes that were staged; what `decision` decides makes them true. */
export interface Intent {
  readonly txid: string
  readonly decision: DecisionRef
  readonly ageMs: number
}

/** The decision of whoever staged it, and of nobody else: no database takes part. */
export const OWN_SLOT = '-'

/** For `stage`: without blanks. */
export function refText({ slot, seq, threadId, serverIdentity }: DecisionRef): string {
  return `${slot} ${seq} ${threadId ?? '-'} ${encodeURIComponent(serverIdentity) || '-'}`
}

export function intentsIn(list: unknown): Intent[] {
  return texts(list).map(text => {
    const [txid = '', slot = '', seq, thread, server, age] = text.split(' ')
    return { txid, decision: decisionOf(txid, slot, seq, thread, server), ageMs: Number(age) }
  })
}

/** As a sweep finds it: with its session, and as the script lists it. */
interface ListedIntent extends Intent {
  readonly key: string
  readonly listed: string
}

export function listedIn(list: unknown): ListedIntent[] {
  return texts(list).map(text => {
    const [age, txid = '', slot = '', seq, thread, server, key = ''] = text.split(' ')
    const decision = decisionOf(txid, slot, seq, thread, server)
    return { txid, decision, ageMs: Number(age), key, listed: text.slice(text.indexOf(' ') + 1) }
  })
}

function decisionOf(txid: string, slot: string, seq = '0', thread = '-', server = '-'): DecisionRef {
  const threadId = thread === '-' ? null : Number(thread)
  return {
    slot,
    seq: Number(seq),
    txid,
    threadId,
    serverIdentity: server === '-' ? '' : decodeURIComponent(server),
  }
}

/** Variables as they are stored now; undefined: it is not there. */
export function variablesIn(list: unknown): Map<string, RememberedVariable | undefined> {
  const found = texts(list)
  const variables = new Map<string, RememberedVariable | undefined>()
  for (let place = 0; place < found.length; place += 6) {
    const [column = '', version, stamp = '', format, by = '', text = ''] = found.slice(place, place + 6)
    const name = variableOf(column)
    const isThere = version !== '0'
    variables.set(
      name,
      isThere ? RememberedVariable.stored(name, Number(version), stamp, by, text, Number(format)) : undefined,
    )
  }
  return variables
}

export function namesIn(list: unknown): string[] {
  return texts(list).map(variableOf)
}

export function texts(list: unknown): string[] {
  return (list as unknown[]).map(String)
}
