/**
 * A short-lived connection outside the pool's limit, for what cannot wait for a connection of the pool:
 * ending a statement that holds one, settling a COMMIT that was not answered. Made from the classes and options behind an existing pool connection, so
 * nothing of mysql2 is imported. Knows nothing of leases.
 */
import { SessionTxError } from '../errors.js'
import type { CoreConnection, CorePool } from './driver.js'
import { findDatabaseError } from './errors.js'
import { okOf } from './round-trip.js'

const CONNECT_MS_MAX = 2_000
const ER_NO_SUCH_THREAD = 1094

type ConnectionClass = new (options: { config: object }) => CoreConnection

/**
 * How to connect to where `sample`, a connection of the pool, goes. The caller destroys what it makes.
 * @throws STORE_UNAVAILABLE where this mysql2 is built otherwise
 */
export function sideConnector(pool: CorePool, sample: CoreConnection): () => CoreConnection {
  const Plain = plainClassOf(sample)
  return () => {
    const connection = new Plain({ config: configOf(pool) })
    connection.on('error', () => {}) // the statements' callbacks get it, too
    return connection
  }
}

/**
 * Ends the statement that `victim` runs.
 *
 * @param whereAmI which server a connection is on, and `server` the victim's: behind a load balancer the same
 * thread number on another server is a stranger's
 * @returns false if the thread is gone, or on a server that a new connection does not reach
 * @throws STORE_UNAVAILABLE where this mysql2 is built otherwise; else what the server says
 */
export async function killQuery(
  pool: CorePool,
  victim: CoreConnection,
  whereAmI: (connection: CoreConnection) => Promise<string>,
  server: string,
): Promise<boolean> {
  if (victim.threadId === null) return false
  const connection = sideConnector(pool, victim)()
  try {
    if ((await whereAmI(connection)) !== server) return false
    return await kill(connection, 'QUERY', victim.threadId)
  } finally {
    connection.destroy()
  }
}

/** @returns false if there is no such thread */
export async function kill(
  from: CoreConnection,
  what: 'QUERY' | 'CONNECTION',
  threadId: number,
): Promise<boolean> {
  try {
    await okOf(from, `KILL ${what} ${threadId}`)
    return true
  } catch (error) {
    if (findDatabaseError(error)?.errno === ER_NO_SUCH_THREAD) return false
    throw error
  }
}

/** PoolConnection extends Connection: the one that belongs to no pool. */
function plainClassOf(sample: CoreConnection): ConnectionClass {
  const plain: unknown = Object.getPrototypeOf(sample.constructor)
  const methods = typeof plain === 'function' ? (plain.prototype as Partial<CoreConnection>) : undefined
  if (typeof methods?.query !== 'function' || typeof methods.destroy !== 'function') {
    throw new SessionTxError('STORE_UNAVAILABLE', 'this mysql2 offers no way to connect outside of its pool')
  }
  return plain as ConnectionClass
}

/** As the pool copies it for each of its connections: connections change their config in place. */
function configOf(pool: CorePool): object {
  const shared = pool.config.connectionConfig
  const copy = Object.create(
    Object.getPrototypeOf(shared),
    Object.getOwnPropertyDescriptors(shared),
  ) as Record<string, unknown>
  copy['connectTimeout'] = CONNECT_MS_MAX
  return copy
}
