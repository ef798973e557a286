/**
 * Short transactions of a session store's own in the application's database: sessions that are fetched before a handler
 * runs, idle times, expiry. The `StoreDatabase` of its contract (session/store.ts), on leased connections like
 * everybody's. Knows nothing of sessions.
 */
import type { LeaseBroker } from './lease/lease.js'
import { answered, shielded } from './round-trip.js'
import { StoreStatements } from './store-statements.js'

interface OwnTransaction extends StoreStatements {
  commit(): Promise<void>
  rollback(): Promise<void>
}

export function storeDatabase(broker: LeaseBroker, acquireMs: number): { begin(): Promise<OwnTransaction> } {
  return {
    begin: async () => {
      const lease = await broker.acquire(acquireMs)
      let over = false
      const end = async (sql: 'COMMIT' | 'ROLLBACK'): Promise<void> => {
        if (over) return
        over = true
        try {
          await answered(lease.connection, sql)
        } catch (error) {
          lease.destroy()
          throw error
        }
        lease.release()
      }
      const statements = new StoreStatements({
        server: lease.server,
        send: sql => shielded(lease.connection, sql),
      })
      return Object.assign(statements, { commit: () => end('COMMIT'), rollback: () => end('ROLLBACK') })
    },
  }
}
