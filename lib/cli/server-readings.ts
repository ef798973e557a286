/**
 * What `session-tx doctor` asks a server, in a connection of its own: nothing is changed, no table of the application
 * is read. Judges nothing.
 */
import { performance } from 'node:perf_hooks'
import type { Connection } from './database.js'

/** A table that cannot roll back. */
interface ForeignTable {
  readonly name: string
  readonly engine: string
}

export interface ServerReadings {
  /** By name, in lower case; of `SHOW VARIABLES`, as this account's sessions get them. */
  readonly variables: ReadonlyMap<string, string>
  readonly connectionsUsed: number
  /** Of the database that the URL names. */
  readonly innodbTables: number
  readonly foreignTables: readonly ForeignTable[]
  /** Undefined: this account may not see triggers. */
  readonly tablesWithTriggers: readonly string[] | undefined
  /** Which of our own tables are there. */
  readonly ownTables: ReadonlySet<string>
  /** Of a statement that does nothing; the middle one of several. */
  readonly roundTripMs: number
  /** How far the server's clock is ahead of this machine's, give or take half a round trip. */
  readonly clockAheadMs: number
}

const PROBES = 9

/** @param own names of the tables that session-tx can have */
export async function readServer(connection: Connection, own: readonly string[]): Promise<ServerReadings> {
  const { roundTripMs, clockAheadMs } = await probe(connection)
  const tables = await rows(connection, TABLES)
  const innodb = tables.filter(([, engine]) => engine === 'InnoDB')
  const foreign = tables.filter(([, engine, rollsBack]) => engine !== 'InnoDB' && rollsBack === 'NO')
  const seen = await rows(connection, TRIGGER_PRIVILEGE)
  return {
    variables: await pairs(connection, 'SHOW SESSION VARIABLES'),
    connectionsUsed: Number(
      (await pairs(connection, "SHOW STATUS LIKE 'Threads_connected'")).get('threads_connected'),
    ),
    innodbTables: innodb.length,
    foreignTables: foreign.map(([name = '', engine = '']) => ({ name, engine })),
    tablesWithTriggers:
      seen.length === 0 ? undefined : (await rows(connection, TRIGGERS)).map(([name = '']) => name),
    ownTables: new Set(tables.map(([name = '']) => name).filter(name => own.includes(name))),
    roundTripMs,
    clockAheadMs,
  }
}

const TABLES = `SELECT t.TABLE_NAME, t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t
  LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
  WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY t.TABLE_NAME`
const TRIGGERS = `SELECT DISTINCT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS
  WHERE EVENT_OBJECT_SCHEMA = DATABASE() ORDER BY EVENT_OBJECT_TABLE`
const OURS = `PRIVILEGE_TYPE = 'TRIGGER' AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')`
const TRIGGER_PRIVILEGE = `SELECT '%' FROM information_schema.USER_PRIVILEGES WHERE ${OURS} UNION ALL
  SELECT TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES
  WHERE ${OURS} AND REPLACE(TABLE_SCHEMA, '\\\\_', '_') = DATABASE()`

async function rows(connection: Connection, sql: string): Promise<string[][]> {
  const [found] = await connection.query(sql)
  return (found as Record<string, string | number | null>[]).map(row =>
    Object.values(row).map(value => String(value ?? '')),
  )
}

async function pairs(connection: Connection, sql: string): Promise<Map<string, string>> {
  return new Map((await rows(connection, sql)).map(([name = '', value = '']) => [name.toLowerCase(), value]))
}

/** The quickest answer tells most of the clock, since least of it is the way. Source: RFC 5905, section 10. */
async function probe(connection: Connection): Promise<Pick<ServerReadings, 'roundTripMs' | 'clockAheadMs'>> {
  const probes: { tookMs: number; aheadMs: number }[] = []
  for (let n = 0; n < PROBES; n++) {
    const [sentAt, wallMs] = [performance.now(), Date.now()]
    const [[seconds = '']] = (await rows(connection, 'SELECT UNIX_TIMESTAMP(NOW(6))')) as [string[]]
    const tookMs = performance.now() - sentAt
    probes.push({ tookMs, aheadMs: Number(seconds) * 1000 - (wallMs + tookMs / 2) })
  }
  probes.sort((one, other) => one.tookMs - other.tookMs)
  const middle = probes[Math.floor(PROBES / 2)]
  return { roundTripMs: middle?.tookMs ?? Number.NaN, clockAheadMs: probes[0]?.aheadMs ?? Number.NaN }
}
