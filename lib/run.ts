/** Joint transactions outside of a request: work of the application's own, and the end of a user's sessions. */
import { SessionTxError } from './errors.js'
import { live } from './joint/life.js'
import {
  type Isolation,
  type JointParts,
  type JointRequest,
  keyOfSession,
  type RunningAttempt,
} from './joint/request.js'
import type { Tx } from './joint/tx.js'
import { checkRetries } from './option-rules.js'
import { isSessionId, sessionKey } from './session/identity.js'
import type { SessionObject } from './session/session-object.js'
import { userKey } from './session/user-key.js'
import { current } from './transaction/current.js'

export interface RunOptions {
  /** The id of an existing session (`ctx.session.id`); without it the work gets a new one. */
  readonly sessionId?: string | undefined
}

interface RunSetup {
  readonly retries: number
  readonly isolation: Isolation
}

export async function run<T>(
  parts: JointParts,
  work: (tx: Tx, session: SessionObject) => Promise<T> | T,
  { sessionId, ...setup }: RunSetup & RunOptions,
): Promise<T> {
  if (typeof work !== 'function') throw new TypeError(`tx.run(work) needs a function, got ${typeof work}`)
  if (sessionId !== undefined && !isSessionId(sessionId))
    throw new TypeError('tx.run: sessionId is not the id of a session')
  const key = sessionId === undefined ? undefined : sessionKey(sessionId)
  return outsideRequest(parts, work, { ...setup, route: '(run)', sessionId, key })
}

interface OutsideSetup extends RunSetup {
  readonly route: string
  readonly sessionId: string | undefined
  readonly key: string | undefined
}

async function outsideRequest<T>(
  parts: JointParts,
  work: (tx: Tx, session: SessionObject) => Promise<T> | T,
  { retries, isolation, route, sessionId, key }: OutsideSetup,
): Promise<T> {
  let hooksEnd: Promise<void> | undefined
  const request: JointRequest<T> = {
    retries: checkRetries(retries),
    isolation,
    readOnly: false,
    route: () => route,
    sessionId: () => sessionId,
    sessionKey: key,
    begun: () => {},
    reset: () => {},
    work: async (tx, session) => work(tx, session()),
    vetoes: () => false,
    commitsOnError: () => false,
    notRerunnable: () => undefined,
    committed: () => {},
    afterResponse: start => start(),
    hooksBegun: end => {
      hooksEnd = end
    },
    report: error => process.emitWarning(`a hook of tx.run() failed: ${String(error)}`, 'SessionTxWarning'),
  }
  const result = await live(request, parts)
  await hooksEnd
  return result
}

/** Sessions begun meanwhile are looked for again, so often at most. */
const LOOKS_MAX = 3

export async function destroySessionsOf(
  parts: JointParts,
  user: unknown,
  { userVariable, ...setup }: RunSetup & { readonly userVariable: string | undefined },
): Promise<number> {
  const { store } = parts
  if (userVariable === undefined)
    throw new SessionTxError('MISCONFIGURED', 'destroySessionsOf needs the option `session.userVariable`')
  if (store.sessionsOf === undefined) {
    const message = `destroySessionsOf: the store '${store.name}' cannot find sessions by their user`
    throw new SessionTxError('MISCONFIGURED', message)
  }
  const wanted = userKey(user)
  const own = ownSession()
  const ended = new Set<string>()
  for (let look = 0; look < LOOKS_MAX; look++) {
    const keys = await store.sessionsOf(wanted)
    const left = keys.filter(key => !ended.has(key))
    for (const key of left) {
      if (key === own?.key) own.end()
      else {
        const end = (_tx: Tx, session: SessionObject): Promise<void> => session.destroy()
        await outsideRequest(parts, end, {
          ...setup,
          route: '(destroySessionsOf)',
          sessionId: undefined,
          key,
        })
      }
      ended.add(key)
    }
    if (left.length === 0) break
  }
  return ended.size
}

/** Of the request that runs here: two transactions would wait for each other. */
function ownSession(): { readonly key: string; readonly end: () => void } | undefined {
  const attempt = current() as RunningAttempt | undefined
  const key = attempt?.state === 'active' ? keyOfSession(attempt.request) : undefined
  if (attempt === undefined || key === undefined) return undefined
  return { key, end: () => void (attempt.session = null) }
}
