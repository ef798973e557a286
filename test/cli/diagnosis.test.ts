/** What the doctor makes of servers that are not at hand, or not well: each finding from the one reading that it needs. */
import { diagnose } from '../../lib/cli/diagnosis.js'
import type { ServerReadings } from '../../lib/cli/server-readings.js'

const WELL: Readonly<Record<string, string>> = {
  version: '10.11.19-MariaDB',
  version_comment: 'Debian 12',
  innodb_snapshot_isolation: 'OFF',
  read_only: 'OFF',
  max_connections: '151',
  max_user_connections: '0',
  wait_timeout: '28800',
  max_statement_time: '0.000000',
  max_prepared_stmt_count: '16382',
  max_allowed_packet: '16777216',
  innodb_flush_log_at_trx_commit: '1',
  innodb_deadlock_detect: 'ON',
}
const USE = { connections: 10, processes: 1 }

function findings(
  variables: Readonly<Record<string, string | undefined>>,
  others: Partial<ServerReadings> = {},
  use = USE,
): string[] {
  const given = Object.entries({ ...WELL, ...variables }).filter(([, value]) => value !== undefined)
  const readings: ServerReadings = {
    variables: new Map(given as [string, string][]),
    connectionsUsed: 3,
    innodbTables: 2,
    foreignTables: [],
    tablesWithTriggers: [],
    ownTables: new Set(['sessions', 'sessions_times', 'sessiontx_commits']),
    roundTripMs: 0.4,
    clockAheadMs: 12,
    ...others,
  }
  return diagnose(readings, use)
    .filter(({ level }) => level !== 'ok')
    .map(({ level, text }) => `${level} ${text}`)
}

test('a server that is well: nothing to say', () => {
  expect(findings({})).toEqual([])
})

const CASES: readonly (readonly [string, string[], string])[] = [
  [
    'MySQL 8',
    findings({
      version: '8.0.36',
      version_comment: 'MySQL Community Server',
      innodb_snapshot_isolation: undefined,
    }),
    "advice isolation: 'snapshot' uses SERIALIZABLE here",
  ],
  [
    'another MariaDB',
    findings({ version: '11.4.2-MariaDB' }),
    'advice the server is MariaDB 11.4.2-MariaDB; session-tx is tested on',
  ],
  [
    'TiDB',
    findings({ version: '8.0.11-TiDB-v8.1.0', innodb_snapshot_isolation: undefined }),
    "advice isolation: 'snapshot' uses optimistic",
  ],
  ['a replica', findings({ read_only: 'ON' }), 'problem read_only is ON'],
  [
    'a replica for everybody',
    findings({ read_only: 'ON', super_read_only: 'ON' }),
    'problem super_read_only is ON',
  ],
  [
    'too few connections',
    findings({}, {}, { connections: 50, processes: 3 }),
    'problem too many: 3 × 50 connections of the server’s 151',
  ],
  [
    'too few for this user',
    findings({ max_user_connections: '5' }),
    'problem too many: 1 × 10 connections of the server’s 5',
  ],
  ['connections that die young', findings({ wait_timeout: '30' }), 'advice wait_timeout is 30 s'],
  [
    'statements with a limit',
    findings({ max_statement_time: '5.000000' }),
    'advice max_statement_time is 5 s',
  ],
  [
    'few prepared statements',
    findings({ max_prepared_stmt_count: '500' }),
    'advice max_prepared_stmt_count is 500; tx.execute() can keep 1000',
  ],
  [
    'small packets',
    findings({ max_allowed_packet: '1048576' }),
    'advice max_allowed_packet is 1048576 bytes',
  ],
  [
    'commits that are not on disk',
    findings({ innodb_flush_log_at_trx_commit: '2' }),
    'advice innodb_flush_log_at_trx_commit is 2',
  ],
  [
    'deadlocks that last',
    findings({ innodb_deadlock_detect: 'OFF' }),
    'advice innodb_deadlock_detect is OFF',
  ],
  [
    'a clock that is wrong',
    findings({}, { clockAheadMs: -4_000 }),
    'advice the clocks of this machine and of the server are 4000 ms apart',
  ],
  ['a server that is far away', findings({}, { roundTripMs: 20 }), 'advice a round trip takes 20.0 ms'],
]
test.each(CASES)('%s', (_, found, start) => {
  expect(found.filter(text => text.startsWith(start))).toHaveLength(1)
})

test('of many tables ten are named', () => {
  const foreignTables = Array.from({ length: 12 }, (_, n) => ({ name: `t${n}`, engine: 'MyISAM' }))
  expect(findings({}, { foreignTables })).toEqual([
    expect.stringContaining('t9 (MyISAM) and 2 more. ALTER TABLE'),
  ])
})
