/**
 * Stores of express-session and koa-session as one thing with promises. Both keep a session as one object under an id;
 * neither has versions. Sources: the "Session Store Implementation" of express-session's README, "External Session
 * Stores" of koa-session's. Knows nothing of sessions of ours.
 */
import { SessionTxError } from '../errors.js'

export type LegacyContents = Readonly<Record<string, unknown>>

export interface LegacyDialect {
  /** Undefined: there is none. */
  get(id: string): Promise<LegacyContents | undefined>
  /** @param lifeMs how long the store has to keep it; it may drop it then */
  set(id: string, contents: LegacyContents, lifeMs: number): Promise<void>
  destroy(id: string): Promise<void>
}

type Callback = (error?: unknown, result?: unknown) => void

interface ExpressStore {
  get(id: string, callback: Callback): unknown
  set(id: string, session: object, callback: Callback): unknown
  destroy(id: string, callback: Callback): unknown
}

interface KoaStore {
  get(id: string, maxAge: number, options: object): unknown
  set(id: string, session: object, maxAge: number, options: object): unknown
  destroy(id: string, options: object): unknown
}

interface DialectSetup {
  /** For koa-session's `get`, which asks for it. */
  readonly lifeMs: () => number
  readonly wallNow: () => number
}

/**
 * Stores for express-session inherit from its Store, which has `createSession`; they are answered by callbacks, and some
 * by promises that resolve to nothing as well.
 * @throws MISCONFIGURED
 */
export function dialectOf(store: unknown, { lifeMs, wallNow }: DialectSetup): LegacyDialect {
  const given = store as Record<string, unknown> | null | undefined
  const isStore = ['get', 'set', 'destroy'].every(name => typeof given?.[name] === 'function')
  if (given === null || given === undefined || !isStore) {
    const message = 'legacyStore(store) takes a store of express-session or koa-session: get, set and destroy'
    throw new SessionTxError('MISCONFIGURED', message)
  }
  return typeof given['createSession'] === 'function'
    ? expressDialect(given as unknown as ExpressStore, wallNow)
    : koaDialect(given as unknown as KoaStore, lifeMs)
}

function expressDialect(store: ExpressStore, wallNow: () => number): LegacyDialect {
  return {
    get: async id => contentsIn(await found(called(callback => store.get(id, callback)))),
    set: async (id, contents, lifeMs) => {
      // What they read to know how long to keep it.
      const cookie = {
        originalMaxAge: lifeMs,
        expires: new Date(wallNow() + lifeMs),
        httpOnly: true,
        path: '/',
      }
      await called(callback => store.set(id, { cookie, ...contents }, callback))
    },
    destroy: async id => void (await called(callback => store.destroy(id, callback))),
  }
}

/** express-session's README: an error with this code says that there is no such session. */
const NOT_FOUND = 'ENOENT'

async function found(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer
  } catch (error) {
    if ((error as { code?: unknown }).code === NOT_FOUND) return undefined
    throw error
  }
}

/** One that throws, or returns a promise that is rejected, has failed as well. */
function called(call: (callback: Callback) => unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const callback: Callback = (error, result) => {
      if (error === undefined || error === null) resolve(result)
      else
        reject(
          error instanceof Error ? error : new Error('it said something that is no error', { cause: error }),
        )
    }
    Promise.resolve(call(callback)).catch(reject)
  })
}

function koaDialect(store: KoaStore, lifeMs: () => number): LegacyDialect {
  const options = Object.freeze({ rolling: true, changed: true })
  return {
    get: async id => contentsIn(await store.get(id, lifeMs(), options)),
    set: async (id, contents, maxAge) => void (await store.set(id, { ...contents }, maxAge, options)),
    destroy: async id => void (await store.destroy(id, options)),
  }
}

function contentsIn(found: unknown): LegacyContents | undefined {
  return typeof found === 'object' && found !== null ? (found as LegacyContents) : undefined
}
