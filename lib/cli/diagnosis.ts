/**
 * What `session-tx doctor` makes of what it has read: sentences, each with what to do. Plain functions; asks nobody.
 */
import { flavourOf } from '../mysql/lease/connection-settings.js'
import { SESSIONS_TABLE, sessionTables } from '../store/mysql-tables.js'
import { COMMIT_TABLE } from '../mysql/commit-record/commit-table.js'
import type { ServerReadings } from './server-readings.js'

export interface Finding {
  /** `problem`: something will fail or be lost. `advice`: it works, and could work better. */
  readonly level: 'ok' | 'advice' | 'problem'
  readonly text: string
}

/** How the application will use the server. */
export interface PlannedUse {
  /** `connectionLimit` of the pool, in each process. */
  readonly connections: number
  readonly processes: number
}

type Examination = (readings: ServerReadings, use: PlannedUse) => Finding | readonly Finding[]

/** Each looks at one thing and says what it saw, also when it is well. */
const EXAMINATIONS: readonly Examination[] = Object.freeze([
  server,
  snapshot,
  writable,
  engines,
  triggers,
  ownTables,
  connections,
  timeouts,
  packets,
  durability,
  deadlocks,
  clock,
  roundTrip,
])

export function diagnose(readings: ServerReadings, use: PlannedUse): readonly Finding[] {
  return EXAMINATIONS.flatMap(examine => examine(readings, use))
}

const ok = (text: string): Finding => ({ level: 'ok', text })
const advice = (text: string): Finding => ({ level: 'advice', text })
const problem = (text: string): Finding => ({ level: 'problem', text })

const NAMES = { mariadb: 'MariaDB', mysql: 'MySQL', tidb: 'TiDB', galera: 'Galera' } as const
const LISTED_MAX = 10

function listed(names: readonly string[]): string {
  const more = names.length - LISTED_MAX
  return names.slice(0, LISTED_MAX).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

function server({ variables }: ServerReadings): Finding {
  const flavour = NAMES[flavourOf(variables)]
  const version = variables.get('version') ?? 'of unknown version'
  const tested = /^10\.11\..*mariadb/i.test(version)
  const text = `the server is ${flavour} ${version}`
  if (tested) return ok(`${text}, which this version of session-tx is tested on`)
  return advice(`${text}; session-tx is tested on MariaDB 10.11, and follows the documentation of yours`)
}

function snapshot({ variables }: ServerReadings): Finding {
  if (variables.has('innodb_snapshot_isolation'))
    return ok(
      "isolation: 'snapshot' has innodb_snapshot_isolation here: of two that change a row, one runs again",
    )
  if (flavourOf(variables) === 'tidb')
    return advice(
      "isolation: 'snapshot' uses optimistic transactions of TiDB here; no test of session-tx runs on it",
    )
  return advice(
    "isolation: 'snapshot' uses SERIALIZABLE here, since there is no innodb_snapshot_isolation: nothing is lost, but plain " +
      'SELECTs wait for locks. MariaDB has it from 10.6.18, 10.11.8, 11.0.6, 11.1.5, 11.2.4 and 11.4.2 on',
  )
}

function writable({ variables }: ServerReadings): Finding {
  const isOn = (name: string): boolean => /^(on|1)$/i.test(variables.get(name) ?? '')
  if (isOn('super_read_only')) return problem('super_read_only is ON: this is a replica; use the primary')
  if (isOn('read_only'))
    return problem('read_only is ON: this is a replica, where transactions that write fail; use the primary')
  return ok('the server can be written to')
}

function engines({ foreignTables, innodbTables }: ServerReadings): Finding {
  if (foreignTables.length === 0) return ok(`every table can roll back (InnoDB: ${innodbTables})`)
  const names = foreignTables.map(({ name, engine }) => `${name} (${engine})`)
  return problem(
    `cannot roll back, so requests that write there are refused: ${listed(names)}. ` +
      "ALTER TABLE … ENGINE=InnoDB, or nonTransactionalTables: 'warn'",
  )
}

function triggers({ tablesWithTriggers }: ServerReadings): Finding {
  if (tablesWithTriggers === undefined)
    return advice(
      'this account lacks the TRIGGER privilege on the database, so session-tx cannot see that a table has no trigger: ' +
        'requests that begin with an UPDATE may run once more than they must. GRANT TRIGGER ON database.* TO …',
    )
  if (tablesWithTriggers.length === 0) return ok('no table has a trigger')
  return ok(
    `triggers are on ${listed(tablesWithTriggers)}; if one writes a table that cannot roll back, that is only noticed`,
  )
}

function ownTables({ ownTables: found }: ServerReadings): readonly Finding[] {
  const sessions = sessionTables(SESSIONS_TABLE).map(({ name }) => name)
  const missing = sessions.filter(name => !found.has(name))
  const forSessions =
    missing.length === 0
      ? ok('the tables of mysqlStore() are there')
      : advice(
          `not there: ${missing.join(', ')}. For mysqlStore(): npx session-tx migrate --only sessions --apply`,
        )
  const forCommits = found.has(COMMIT_TABLE)
    ? ok('the table of the commit record is there')
    : advice(
        `not there: ${COMMIT_TABLE}. For commitRecord: 'always': npx session-tx migrate --only commits --apply`,
      )
  return [forSessions, forCommits]
}

function connections({ variables, connectionsUsed }: ServerReadings, use: PlannedUse): Finding {
  const wanted = use.connections * use.processes
  const perUser = Number(variables.get('max_user_connections') ?? 0)
  const max = Math.min(Number(variables.get('max_connections')), perUser > 0 ? perUser : Infinity)
  const plan = `${use.processes} × ${use.connections} connections of the server’s ${max} (in use now: ${connectionsUsed})`
  // One more of each process ends statements at the deadline.
  if (wanted + use.processes > max)
    return problem(
      `too many: ${plan}. Lower connectionLimit or raise max_connections; --connections and --processes say the plan`,
    )
  return ok(`enough: ${plan}`)
}

const IDLE_S_MIN = 60
const PREPARED_PER_CONNECTION = 100

function timeouts({ variables }: ServerReadings, use: PlannedUse): readonly Finding[] {
  const findings: Finding[] = []
  const wait = Number(variables.get('wait_timeout'))
  if (wait < IDLE_S_MIN)
    findings.push(
      advice(
        `wait_timeout is ${wait} s: the server closes connections that the pool still believes in; set idleTimeout of the pool below it`,
      ),
    )
  const limit = Number(variables.get('max_statement_time') ?? 0)
  if (limit > 0)
    findings.push(advice(`max_statement_time is ${limit} s: longer statements fail, and are not run again`))
  const prepared = Number(variables.get('max_prepared_stmt_count') ?? Infinity)
  const needed = use.connections * use.processes * PREPARED_PER_CONNECTION
  if (prepared < needed)
    findings.push(
      advice(
        `max_prepared_stmt_count is ${prepared}; tx.execute() can keep ${needed} open. Raise it, or use tx.query()`,
      ),
    )
  return findings.length > 0 ? findings : [ok(`time limits are no hindrance (wait_timeout ${wait} s)`)]
}

const SESSION_BYTES_MAX = 1024 * 1024

function packets({ variables }: ServerReadings): Finding {
  const max = Number(variables.get('max_allowed_packet'))
  if (max >= 2 * SESSION_BYTES_MAX) return ok(`max_allowed_packet is ${max} bytes`)
  return advice(
    `max_allowed_packet is ${max} bytes: a session of session.sizeBytesMax (1 MiB) may not fit into mysqlStore()`,
  )
}

function durability({ variables }: ServerReadings): Finding {
  const flush = variables.get('innodb_flush_log_at_trx_commit')
  if (flush === undefined || flush === '1') return ok('a commit is on disk before it is answered')
  return advice(
    `innodb_flush_log_at_trx_commit is ${flush}: a crash of the server can lose commits that were answered`,
  )
}

function deadlocks({ variables }: ServerReadings): Finding {
  if (!/^(off|0)$/i.test(variables.get('innodb_deadlock_detect') ?? 'on'))
    return ok('deadlocks are noticed at once')
  return advice('innodb_deadlock_detect is OFF: a deadlock lasts until lockWaitMs is over')
}

const CLOCK_MS_MAX = 1_000

function clock({ clockAheadMs, roundTripMs }: ServerReadings): Finding {
  const apart = `the clocks of this machine and of the server are ${Math.round(Math.abs(clockAheadMs))} ms apart`
  if (Math.abs(clockAheadMs) <= CLOCK_MS_MAX + roundTripMs) return ok(apart)
  return advice(`${apart}: sessions that several machines share expire by the clock of each. Run NTP on both`)
}

const ROUND_TRIP_MS_MAX = 5

function roundTrip({ roundTripMs }: ServerReadings): Finding {
  const text = `a round trip takes ${roundTripMs.toFixed(1)} ms, and a request of N statements makes N + 1`
  return roundTripMs <= ROUND_TRIP_MS_MAX
    ? ok(text)
    : advice(`${text}: bring application and database nearer together`)
}
