/**
 * The session settings that our transactions run under, what a server can do of them, and how a connection
 * gets them and gets its own back. Knows nothing of pools, and not what the transactions do.
 */
import type { CoreConnection } from '../driver.js'
import type { Flavour } from '../errors.js'
import type { Dialect } from '../statement/lexer.js'
import { okOf, rowsOf } from '../round-trip.js'

export type Isolation = 'read committed' | 'repeatable read' | 'snapshot' | 'serializable'

/** What kind of server is behind the pool; found out once. */
export interface ServerFacts {
  readonly flavour: Flavour
  /** As the server says it: `10.11.19-MariaDB-0+deb12u1`. */
  readonly version: string
  /** It has `innodb_snapshot_isolation`: the first committer of a row wins, the other gets 1020. */
  readonly snapshotIsolation: boolean
  readonly galera: boolean
  /**
   * Plain SELECTs read from one consistent view per transaction. False: they lock, or each has a view of its
   * own.
   */
  readonly rowSnapshot: boolean
  /** How it reads the text of a statement. */
  readonly dialect: Dialect
}

export interface ServerProfile {
  readonly facts: ServerFacts
  /** What we change, by name, with the expression it is set to. */
  readonly settings: ReadonlyMap<string, string>
  /** Variables that together tell one server from another behind the same address. */
  readonly identity: readonly string[]
}

/** How to undo it, and on which server it was done. */
export interface TakenOver {
  readonly restoreSql: string
  readonly serverIdentity: string
  /** The connection's current database; '' if it has none. */
  readonly schema: string
}

const IDENTITY = ['hostname', 'port', 'server_id', 'server_uuid', 'server_uid']
const INTERESTING = [
  ...[
    'version',
    'version_comment',
    'autocommit',
    'tx_isolation',
    'transaction_isolation',
    'lock_wait_timeout',
    'sql_mode',
  ],
  ...[
    'innodb_lock_wait_timeout',
    'innodb_snapshot_isolation',
    'wsrep_on',
    'wsrep_sync_wait',
    'tidb_txn_mode',
  ],
  ...IDENTITY,
]
/**
 * SHOW, because SELECT fails as a whole for one variable that this server lacks. 1.2 ms here; SELECT takes
 * 0.4.
 */
const DETECT = `SHOW SESSION VARIABLES WHERE Variable_name IN ('${INTERESTING.join("', '")}')`
const IN_TRANSACTION = 1
/** Reads, 1; UPDATE and DELETE, 2; INSERT and REPLACE, 4. */
const SYNC_WAIT = 7

/** Asks a server what it is and has; the answer holds for every connection of the pool. */
export async function detectServer(
  connection: CoreConnection,
  isolation: Isolation,
  lockWaitMs: number,
): Promise<ServerProfile> {
  const found = new Map<string, string>()
  for (const [name, value] of await rowsOf(connection, DETECT))
    found.set(String(name).toLowerCase(), value ?? '')
  const flavour = flavourOf(found)
  const hasSnapshot = found.has('innodb_snapshot_isolation')
  const level = levelOf(isolation, flavour, hasSnapshot)
  const seconds = String(Math.max(1, Math.ceil(lockWaitMs / 1000)))

  const settings = new Map([
    ['autocommit', '0'],
    [found.has('transaction_isolation') ? 'transaction_isolation' : 'tx_isolation', `'${level}'`],
    ['innodb_lock_wait_timeout', seconds],
    ['lock_wait_timeout', seconds],
  ])
  if (hasSnapshot && (isolation === 'snapshot' || isolation === 'serializable'))
    settings.set('innodb_snapshot_isolation', '1')
  // A bit mask: the application may already wait for more. A node waits for what others have answered only in the first
  // statement of a transaction, so a transaction that begins with a write must wait, too: with 1 alone its later SELECTs
  // were stale in 19 of 500 cases.
  if (flavour === 'galera') settings.set('wsrep_sync_wait', `@@session.wsrep_sync_wait | ${SYNC_WAIT}`)
  // Documented, not run: pessimistic transactions lose updates as MySQL's REPEATABLE READ does, optimistic
  // ones do not.
  if (flavour === 'tidb' && isolation === 'snapshot') settings.set('tidb_txn_mode', "'optimistic'")
  for (const name of settings.keys()) if (!found.has(name)) settings.delete(name)

  return {
    facts: Object.freeze({
      flavour,
      version: found.get('version') ?? '',
      snapshotIsolation: hasSnapshot,
      galera: flavour === 'galera',
      rowSnapshot: level === 'REPEATABLE-READ',
      dialect: dialectOf(found),
    }),
    settings,
    identity: IDENTITY.filter(name => found.has(name)),
  }
}

/** @param found variables of the server by name, in lower case */
export function flavourOf(found: ReadonlyMap<string, string>): Flavour {
  const words = `${found.get('version')} ${found.get('version_comment')}`
  if (/tidb/i.test(words)) return 'tidb'
  if (/^(on|1)$/i.test(found.get('wsrep_on') ?? '')) return 'galera'
  return /mariadb/i.test(words) ? 'mariadb' : 'mysql'
}

/** The SQL mode is that of the pool's connections; one that a handler sets is gone with the connection it is set on. */
function dialectOf(found: ReadonlyMap<string, string>): Dialect {
  const version = found.get('version') ?? ''
  const [, major = 0, minor = 0, patch = 0] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? []
  const modes = (found.get('sql_mode') ?? '').split(',')
  return Object.freeze({
    mariadb: /mariadb/i.test(`${version} ${found.get('version_comment')}`),
    version: Number(major) * 10_000 + Number(minor) * 100 + Number(patch),
    ansiQuotes: modes.includes('ANSI_QUOTES'),
    backslashEscapes: !modes.includes('NO_BACKSLASH_ESCAPES'),
  })
}

/**
 * A server without innodb_snapshot_isolation (MySQL 8, older MariaDB) gets SERIALIZABLE for `snapshot`: under
 * autocommit=0 its plain SELECTs take shared locks, so of two read-modify-writes one ends as a deadlock and
 * none is lost.
 */
function levelOf(isolation: Isolation, flavour: Flavour, hasSnapshot: boolean): string {
  if (isolation === 'read committed') return 'READ-COMMITTED'
  if (isolation === 'repeatable read') return 'REPEATABLE-READ'
  if (isolation === 'serializable') return 'SERIALIZABLE'
  return hasSnapshot || flavour === 'tidb' ? 'REPEATABLE-READ' : 'SERIALIZABLE'
}

/** Remembers the connection's settings and puts ours in their place: two round trips. */
export async function takeOver(connection: CoreConnection, profile: ServerProfile): Promise<TakenOver> {
  const names = [...profile.settings.keys()]
  const columns = [
    ...names.map(name => `@@session.${name}`),
    ...profile.identity.map(name => `@@global.${name}`),
    'DATABASE()',
  ]
  const [row = []] = await rowsOf(connection, `SELECT ${columns.join(', ')}`)
  const ok = await okOf(connection, assign([...profile.settings]))
  // Somebody left a transaction open on it: with it we would commit foreign writes and read from a foreign
  // view.
  if ((ok.serverStatus & IN_TRANSACTION) !== 0) await okOf(connection, 'ROLLBACK')
  return {
    restoreSql: assign(names.map((name, index) => [name, literal(row[index])])),
    serverIdentity: identityOf(row.slice(names.length, -1)),
    schema: row.at(-1) ?? '',
  }
}

/** What {@link TakenOver.serverIdentity} is on this connection. */
export async function readIdentity(connection: CoreConnection, profile: ServerProfile): Promise<string> {
  if (profile.identity.length === 0) return identityOf([])
  const [row = []] = await rowsOf(
    connection,
    `SELECT ${profile.identity.map(name => `@@global.${name}`).join(', ')}`,
  )
  return identityOf(row)
}

/** Puts the application's own settings back. Nothing may be open: `autocommit=1` would commit it. */
export async function giveOver(connection: CoreConnection, taken: TakenOver): Promise<void> {
  await okOf(connection, taken.restoreSql)
}

function identityOf(values: readonly unknown[]): string {
  return JSON.stringify(values)
}

/** One SET for all of them: the server sets all or none. */
function assign(settings: readonly (readonly [string, string])[]): string {
  return `SET ${settings.map(([name, value]) => `SESSION ${name} = ${value}`).join(', ')}`
}

function literal(value: string | null | undefined): string {
  const text = value ?? ''
  return /^\d+$/.test(text) ? text : `'${text.replaceAll("'", "''")}'`
}
