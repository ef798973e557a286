/** A database of its own for a benchmark, on the server that MYSQL_URL names. Knows nothing of what is measured. */
import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import mysql, { type Connection, type RowDataPacket } from 'mysql2/promise'
import { median } from './report.js'

export class BenchDatabase {
  readonly url: URL
  /** As it names itself, such as `MariaDB 10.11.19`. */
  readonly server: string
  readonly #admin: Connection

  private constructor(admin: Connection, url: URL, server: string) {
    this.#admin = admin
    this.url = url
    this.server = server
  }

  static async open(): Promise<BenchDatabase> {
    const { MYSQL_URL } = process.env
    if (MYSQL_URL === undefined)
      throw new Error('MYSQL_URL is not set: run npm run bench, it starts a MariaDB')
    const url = new URL(MYSQL_URL)
    url.pathname = '/'
    const admin = await mysql.createConnection(url.href)
    const name = `bench_${randomBytes(6).toString('hex')}`
    await admin.query(`CREATE DATABASE ${name}`)
    await admin.changeUser({ database: name })
    const [rows] = await admin.query<RowDataPacket[]>('SELECT VERSION() AS version')
    const version = String(rows[0]?.['version'])
    url.pathname = `/${name}`
    const product = /mariadb/i.test(version) ? 'MariaDB' : 'MySQL'
    return new BenchDatabase(admin, url, `${product} ${version.split('-')[0]}`)
  }

  /** The same database by another port. */
  through(port: number): URL {
    const url = new URL(this.url)
    url.hostname = '127.0.0.1'
    url.port = String(port)
    return url
  }

  /** One row per client, all at zero. */
  async makeVisitors(count: number): Promise<void> {
    await this.#admin.query('DROP TABLE IF EXISTS visitors')
    const columns = 'id INT PRIMARY KEY, visits INT NOT NULL'
    await this.#admin.query(`CREATE TABLE visitors (${columns}) ENGINE=InnoDB`)
    const rows = Array.from({ length: count }, (_, index) => [index + 1, 0])
    await this.#admin.query('INSERT INTO visitors VALUES ?', [rows])
  }

  /** Tables of another shape. */
  async run(sql: string): Promise<void> {
    await this.#admin.query(sql)
  }

  async visits(): Promise<number> {
    const [rows] = await this.#admin.query<RowDataPacket[]>('SELECT SUM(visits) AS visits FROM visitors')
    return Number(rows[0]?.['visits'])
  }

  /** That the server has received, and sent, so far, of everybody. */
  async bytes(): Promise<readonly [received: number, sent: number]> {
    const [rows] = await this.#admin.query<RowDataPacket[]>("SHOW GLOBAL STATUS LIKE 'Bytes_%'")
    const of = (name: string): number => Number(rows.find(row => row['Variable_name'] === name)?.['Value'])
    return [of('Bytes_received'), of('Bytes_sent')]
  }

  async close(): Promise<void> {
    await this.#admin.query(`DROP DATABASE ${this.url.pathname.slice(1)}`)
    await this.#admin.end()
  }
}

/** How long the smallest round trip takes by this address, in milliseconds. */
export async function roundTripMs(url: URL): Promise<number> {
  const connection = await mysql.createConnection(url.href)
  const times: number[] = []
  for (let count = 0; count < 300; count++) {
    const startMs = performance.now()
    await connection.query('DO 0')
    times.push(performance.now() - startMs)
  }
  await connection.end()
  return median(times)
}
