/**
 * A process for each node of a Galera cluster, sessions in MySQL, and a balancer that sends each request to the next of
 * them: the nodes are restarted one by one, as their administrator would, and nobody is refused; and the demo keeps its
 * promises. Nodes that go without notice are in galera-nodes.test.ts.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { ApplicationProcess } from '../../example-app/processes/application-process.js'
import { Balancer } from '../../example-app/processes/balancer.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { type Cluster, openCluster } from '../support/cluster.js'
import { torturedFile } from '../support/fleet.js'
import { Visitors } from '../support/torture.js'
import { makeTables } from '../support/torture-app.js'

const VISITORS = 6
const WORKERS = 8

let cluster: Cluster
beforeAll(async () => {
  cluster = await openCluster()
}, 180_000)
afterAll(() => cluster.close(), 30_000)

describe('a process for each node', () => {
  let processes: readonly ApplicationProcess<unknown>[]
  let balancer: Balancer
  beforeEach(async () => {
    const ddl = sessionTables('sessions').map(table => table.ddl)
    await makeTables(cluster.nodes[0]!.url, ddl)
    processes = await Promise.all(
      cluster.nodes.map(({ url }) => ApplicationProcess.start(torturedFile, [url])),
    )
    balancer = await Balancer.open(processes.map(({ port }) => port))
  }, 60_000)
  afterEach(async () => {
    await balancer.close()
    for (const one of processes) await one.end()
  })

  test('each node is sent nothing, stopped, started and used again, under load: every request is answered with 200', async () => {
    const databaseUrl = cluster.nodes[0]!.url
    const url = `http://127.0.0.1:${balancer.port}`
    const load = await Visitors.begin({ urls: [url], databaseUrl, count: VISITORS })
    let over = false
    let longestMs = 0
    const worker = async (number: number): Promise<void> => {
      while (!over) {
        const started = Date.now()
        await load.request(number % VISITORS)
        longestMs = Math.max(longestMs, Date.now() - started)
      }
    }
    const working = Promise.all(Array.from({ length: WORKERS }, (_, number) => worker(number)))
    const restarts = async (): Promise<void> => {
      for (const [number, node] of cluster.nodes.entries()) {
        const { port } = processes[number]!
        await balancer.remove(port)
        await node.end()
        await node.start()
        await cluster.joined(number)
        balancer.add(port)
      }
    }
    try {
      await Promise.race([restarts(), working])
    } finally {
      over = true
    }
    await working
    const { problems, effects } = await load.verify()
    process.stdout.write(`${JSON.stringify({ answers: load.answers, effects, longestMs })}\n`)
    expect(problems).toEqual([])
    expect(Object.keys(load.answers)).toEqual(['200 OK'])
  }, 120_000)
})

test('the demo over three processes, each on its own node: nothing is lost', async () => {
  const urls = cluster.nodes.map(({ url }) => url)
  const args = ['scripts/run.mjs', 'demo', '--seconds', '15', '--processes', '3', '--store', 'mysql']
  const child = spawn(process.execPath, args, {
    cwd: resolve(__dirname, '../..'),
    env: { ...process.env, MYSQL_URL: urls[0], MYSQL_NODES: urls.join(' ') },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let out = ''
  child.stdout.on('data', chunk => (out += String(chunk)))
  const [code] = (await once(child, 'close')) as [unknown]
  process.stdout.write(out)
  expect(out).toMatch(/session-tx lost nothing: .+, 3 processes on 3 nodes, --store mysql\)/)
  expect(code).toBe(0)
}, 120_000)
