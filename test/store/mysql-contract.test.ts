/** The MySQL store keeps the published contract of a session store, each sentence in transactions of its own. */
import { mysqlStore } from '../../lib/index.js'
import { LeaseBroker } from '../../lib/mysql/lease/lease.js'
import { corePoolOf } from '../../lib/mysql/driver.js'
import { storeDatabase } from '../../lib/mysql/store-database.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { storeContract } from '../../lib/testing/index.js'
import { systemClock } from '../../lib/transaction/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
let broker: LeaseBroker

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 6 })
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
  broker = new LeaseBroker(corePoolOf(db.pool), {
    isolation: 'snapshot',
    lockWaitMs: 5_000,
    clock: systemClock,
  })
})
afterAll(async () => {
  await broker.close()
  await db.close()
})

const capabilities = {
  local: false,
  injectedClock: false,
  countsCommits: false,
  parallelClaims: false,
  findsUsers: true,
}

storeContract(
  'mysqlStore',
  () => ({ store: mysqlStore(), database: storeDatabase(broker, 5_000) }),
  capabilities,
)

storeContract(
  'mysqlStore that changes what it would lock, as on Galera,',
  () => {
    const { begin } = storeDatabase(broker, 5_000)
    const database = { begin: async () => Object.assign(await begin(), { locksAreLocal: true }) }
    return { store: mysqlStore(), database }
  },
  capabilities,
)
