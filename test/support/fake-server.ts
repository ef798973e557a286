/**
 * A server that is not here, at the wire: mysql2's own server speaking for MySQL 8, TiDB, Galera or MariaDB. It proves
 * how we read those servers' packets, not what those servers do. It knows a transaction only as a status bit, and
 * no data: every SELECT of the application is answered with OK.
 */
import type { AddressInfo, Socket } from 'node:net'
import { type Connection, createServer } from 'mysql2'
import type { Flavour } from '../../lib/mysql/errors.js'

/** What to do instead of answering OK. */
export type Trouble =
  | { readonly errno: number; readonly message?: string }
  /** The connection ends without an answer, or with the server's last words before it does. */
  | 'hang up'
  | { readonly lastWords: number; readonly message?: string }

export interface FakeServer {
  readonly url: string
  /** `2: UPDATE …`: the text with the number of its connection, counted from 1. */
  readonly log: string[]
  /** Called with each statement but those of the set-up; undefined: OK. */
  script: (sql: string, connection: number) => Trouble | undefined
  /** Refuses to let anybody in. */
  closed: { readonly errno: number; readonly message: string } | undefined
  /** Connections that are open now. */
  readonly open: number
  close(): Promise<void>
}

const BASICS = {
  version_comment: '',
  autocommit: 'ON',
  transaction_isolation: 'REPEATABLE-READ',
  innodb_lock_wait_timeout: '50',
  lock_wait_timeout: '86400',
  hostname: 'fake',
  port: '3306',
  server_id: '1',
}

/** As each kind of server names itself and what it has. Versions are examples. */
export const PROFILES: Readonly<Record<Flavour, Readonly<Record<string, string>>>> = Object.freeze({
  mysql: { ...BASICS, version: '8.0.36', version_comment: 'MySQL Community Server - GPL' },
  mariadb: { ...BASICS, version: '10.11.8-MariaDB', innodb_snapshot_isolation: 'OFF' },
  galera: {
    ...BASICS,
    version: '10.11.8-MariaDB',
    innodb_snapshot_isolation: 'OFF',
    wsrep_on: 'ON',
    wsrep_sync_wait: '0',
  },
  tidb: { ...BASICS, version: '8.0.11-TiDB-v7.5.0', tidb_txn_mode: 'pessimistic' },
})

const IN_TRANSACTION = 1
const CAPABILITIES = 0xffffff & ~0x0800 & ~0x0020 // neither TLS nor compression
const UTF8MB4 = 45
const ENDS = /^\s*(COMMIT|ROLLBACK)\s*$/i

export async function openFakeServer(flavour: Flavour): Promise<FakeServer> {
  const variables = new Map(Object.entries(PROFILES[flavour]))
  const sockets = new Set<Connection>()
  let count = 0
  const server = createServer(connection => {
    const number = ++count
    sockets.add(connection)
    connection.on('error', () => {})
    streamOf(connection).once('close', () => sockets.delete(connection))
    let inTransaction = false
    const ok = (): void => connection.writeOk({ serverStatus: inTransaction ? IN_TRANSACTION : 0 } as object)
    const answered = (): void => {
      // Each command begins a sequence of packets; mysql2's server does not count anew by itself.
      ;(connection as unknown as { sequenceId: number }).sequenceId = 0
    }
    const answer = (sql: string): void => {
      respond(sql)
      answered()
    }
    const respond = (sql: string): void => {
      if (/^SHOW SESSION VARIABLES/i.test(sql))
        return table(connection, ['Variable_name', 'Value'], [...variables])
      if (/^SELECT @@/i.test(sql)) {
        const names = [...sql.matchAll(/@@(?:session|global)\.(\w+)/gi)].map(([, name = '']) => name)
        return table(connection, names, [names.map(name => variables.get(name) ?? '')])
      }
      if (/information_schema/i.test(sql)) return table(connection, ['a', 'b', 'c'], [])
      fake.log.push(`${number}: ${sql}`)
      if (/^SET /i.test(sql)) return ok()
      const trouble = fake.script(sql, number)
      if (trouble === 'hang up') return hangUp(connection)
      if (ENDS.test(sql)) inTransaction = false
      else inTransaction = true
      if (trouble === undefined) return ok()
      const code = 'errno' in trouble ? trouble.errno : trouble.lastWords
      connection.writeError({ code, message: trouble.message ?? `error ${code}` } as never)
      if ('lastWords' in trouble) hangUp(connection)
    }
    connection.on('query', answer)
    connection.on('stmt_prepare', answer) // mysql2's name for SET, too
    const handshake = {
      protocolVersion: 10,
      serverVersion: variables.get('version'),
      connectionId: number,
      statusFlags: 2,
      characterSet: UTF8MB4,
      capabilityFlags: CAPABILITIES,
    }
    if (fake.closed !== undefined) {
      connection.writeError({ code: fake.closed.errno, message: fake.closed.message } as never)
      return hangUp(connection)
    }
    const authCallback = (_: unknown, done: (error: null) => void): void => {
      done(null)
      answered()
    }
    connection.serverHandshake({ ...handshake, authCallback })
  })
  await new Promise<void>(resolve => {
    ;(server as unknown as { _server: { once(event: string, done: () => void): void } })._server.once(
      'listening',
      resolve,
    )
    server.listen(0)
  })
  const { port } = (server as unknown as { _server: { address(): AddressInfo } })._server.address()
  const fake: FakeServer = {
    url: `mysql://fake:fake@127.0.0.1:${port}/fake`,
    log: [],
    script: () => undefined,
    closed: undefined,
    get open() {
      return sockets.size
    },
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) hangUp(socket)
      }),
  }
  return fake
}

function hangUp(connection: Connection): void {
  streamOf(connection).destroySoon()
}

function streamOf(connection: Connection): Socket {
  return (connection as unknown as { stream: Socket }).stream
}

function table(connection: Connection, names: readonly string[], rows: readonly (readonly string[])[]): void {
  const columns = names.map(name => ({
    catalog: 'def',
    schema: '',
    table: '',
    orgTable: '',
    name,
    orgName: name,
    characterSet: UTF8MB4,
    columnLength: 255,
    columnType: 253,
    flags: 0,
    decimals: 0,
  }))
  const raw = connection as unknown as {
    writeColumns(columns: object[]): void
    writeTextRow(row: readonly string[]): void
  }
  raw.writeColumns(columns)
  for (const row of rows) raw.writeTextRow(row)
  connection.writeEof()
}
