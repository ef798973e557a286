/**
 * A mixed load for SOAK_SECONDS: reads, writes, lost races, throws, uploads, savepoints, logins and logouts, clients that
 * leave. Whatever a request leaves behind would add up, so nothing may: the heap stays as it is, and in the end there are
 * no more objects and handles than at the beginning, and no connection, transaction or lock is in use.
 * `npm run test:faults -- soak --soak-seconds 90` for a shorter one.
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ApplicationProcess } from '../../example-app/processes/application-process.js'
import type { SoakFigures } from '../processes/soaked.js'
import { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen } from '../support/observing.js'
import { randomOf, sleep } from '../support/random.js'

const SECONDS = Number(process.env['SOAK_SECONDS'] ?? 600)
const SEED = Number(process.env['FAULT_SEED'] ?? Math.trunc(Math.random() * 2 ** 32))

const VISITORS = 12
/** More than there are connections, and than visitors: they compete for both. */
const WORKERS = 24
const CONNECTIONS = 8
/** Sessions that nobody knows the cookie of any more make room for others: their number is the same all the time. */
const SESSIONS_MAX = 60
const REQUEST_BYTES_MAX = 4_096
/** Of the second half, with the load at rest. */
const SAMPLES = 9
/** What the metrics keep by second and minute fills within an hour; compiled code still changes a little. */
const GROWTH_BYTES_MAX = 1024 * 1024

const file = pathToFileURL(resolve(__dirname, '../../.cache/build/test/processes/soaked.js'))
const random = randomOf(SEED)
const upTo = (max: number): number => Math.trunc(random() * max)

/** What a worker does next, as often as it is written here. */
const DECK = [
  ...Array<string>(6).fill('read'),
  ...Array<string>(6).fill('write'),
  ...Array<string>(4).fill('hot'),
  ...Array<string>(4).fill('upload'),
  ...['conflict', 'throw', 'slow', 'slow', 'savepoint', 'login', 'logout'],
]

let db: TestDatabase
let app: ApplicationProcess<SoakFigures>
let url: string
let clients: readonly Client[]
let answers: Record<string, number>

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE soak (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query('INSERT INTO soak SELECT seq, 0 FROM seq_0_to_99')
  const limits = [CONNECTIONS, SESSIONS_MAX, REQUEST_BYTES_MAX].map(String)
  app = await ApplicationProcess.start(file, [db.url, ...limits])
  url = `http://127.0.0.1:${app.port}`
  clients = Array.from({ length: VISITORS }, () => new Client(url))
  answers = {}
}, 60_000)
afterAll(async () => {
  await app.close()
  await db.close()
})

function note(kind: string): void {
  answers[kind] = (answers[kind] ?? 0) + 1
}

async function request(visitor: number, action: string, stays = false): Promise<void> {
  const body = action === 'upload' ? 'x'.repeat(upTo(2 * REQUEST_BYTES_MAX)) : ''
  const leaves = !stays && (action === 'slow' || random() < 0.05)
  const { answer, leave } = clients[visitor]!.start('POST', `/${action}`, {
    headers: { 'x-visitor': String(visitor) },
    body,
  })
  if (leaves) setTimeout(leave, upTo(12))
  try {
    const { status } = await answer
    note(`${action} ${status}`)
  } catch (error) {
    if (!leaves) throw error
    note(`${action} left`)
  }
}

/** So many workers, for so long. */
async function load(seconds: number): Promise<void> {
  const end = Date.now() + seconds * 1_000
  const work = async (): Promise<void> => {
    while (Date.now() < end) await request(upTo(VISITORS), DECK[upTo(DECK.length)]!)
  }
  await Promise.all(Array.from({ length: WORKERS }, work))
}

/** Those whose client has left are still at work, and sockets close a little later. */
const LOOKS_MAX = 200
async function atRest(): Promise<SoakFigures> {
  let figures = await app.figures()
  for (let looks = 0; looks < LOOKS_MAX && !isAtRest(figures); looks++) {
    await sleep(50)
    figures = await app.figures()
  }
  return figures
}

/** Killed connections are made anew when somebody needs one, so not all of them are there at every moment. */
function boundOf(name: string): number {
  return ['LeasedConnection', 'PreparedStatements'].includes(name) ? CONNECTIONS : 0
}

function isAtRest({ running, handles }: SoakFigures): boolean {
  return running === 0 && (handles['TCPSocketWrap'] ?? 0) <= CONNECTIONS
}

/** What the application is like at rest, as full of sessions and connections as it can be. */
async function look(): Promise<{ figures: SoakFigures; live: Record<string, number> }> {
  // As many requests as there are connections have one each, at the same time.
  const meeting = Array.from({ length: CONNECTIONS }, (_, visitor) => request(visitor, 'meet', true))
  await Promise.all(meeting)
  for (let strangers = 0; strangers < SESSIONS_MAX; strangers++) await new Client(url).post('/write')
  const figures = await atRest()
  const live = (await new Client(url).get('/live')).json<Record<string, number>>()
  return { figures, live }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.trunc(values.length / 2)]!
}

test(
  `${SECONDS} s of a mixed load leave nothing behind: no heap, no object, no handle, no connection, no lock`,
  async () => {
    process.stdout.write(`\nseed ${SEED}\n`)
    await load(SECONDS * 0.1) // code is compiled, and tables of names have filled
    const before = await look()
    await load(SECONDS * 0.4)
    const samples: SoakFigures[] = []
    for (let sample = 0; sample < SAMPLES; sample++) {
      await load((SECONDS * 0.5) / SAMPLES)
      samples.push(await atRest())
    }
    const after = await look()

    const heap = samples.map(({ heapBytes }) => heapBytes)
    const third = SAMPLES / 3
    const growthBytes = median(heap.slice(-third)) - median(heap.slice(0, third))
    const objects = Object.entries(after.live).filter(([, count]) => count > 0)
    const more = objects.filter(([name, count]) => count > Math.max(before.live[name]!, boundOf(name)))
    const { served, stats } = after.figures
    const handles = { before: before.figures.handles, after: after.figures.handles }
    process.stdout.write(
      `${JSON.stringify({ served, answers, heap, growthBytes, handles, stats, objects: Object.fromEntries(objects) }, null, 1)}\n`,
    )
    expect(Object.keys(answers).filter(kind => !expected(kind))).toEqual([])
    const { committed, rolledBack, refused, unknown } = stats.requests
    expect([committed + rolledBack + refused, unknown]).toEqual([served, 0])
    expect(growthBytes).toBeLessThan(GROWTH_BYTES_MAX)
    expect(objects.map(([name]) => name)).toEqual(
      expect.arrayContaining(['LocalSession', 'LeasedConnection']),
    )
    expect(more).toEqual([])
    expect(handles.after).toEqual(handles.before)
    expect(stats.tickets).toEqual({ waiting: 0, keys: 0 })
    expect(stats.sessions.live).toBe(SESSIONS_MAX)
    await nothingOpen(db)
    // Waits for whoever has read or written the table and has not ended.
    await db.admin.query('SET SESSION lock_wait_timeout = 1')
    await db.admin.query(`ALTER TABLE ${db.name}.soak COMMENT = 'nobody has it'`)
  },
  SECONDS * 1_000 + 120_000,
)

/** Everybody is answered, but for lost races of those who cannot run again or have lost too often. */
function expected(kind: string): boolean {
  return / (?:200|left|503)$/.test(kind) || kind === 'throw 500'
}
