/** MariaDB is killed under load and started again: requests fail cleanly meanwhile, and all recovers alone (acceptance 46). */
import { ownServer, type OwnServer } from '../support/own-server.js'
import { openTorture, type Torture } from '../support/torture.js'

const VISITORS = 6
let server: OwnServer
let torture: Torture

beforeAll(async () => {
  server = await ownServer()
}, 120_000)
afterAll(() => server.close())
beforeEach(async () => {
  torture = await openTorture(server.url, server.url, VISITORS, {
    retry: { deadlineMs: 1_500 },
    acquireMs: 1_000,
  })
})
afterEach(() => torture.close())

test('each effect is there once or not at all, the session always agrees, and requests succeed again alone', async () => {
  const { request, served, answers } = torture
  let phase: 'before' | 'down' | 'after' = 'before'
  const succeeded = { before: 0, down: 0, after: 0 }
  const worker = async (visitor: number): Promise<void> => {
    while (succeeded.after < 60) {
      const during = phase
      if ((await request(visitor)) === 'stored') succeeded[during] += 1
    }
  }
  // Two for each visitor: they also compete.
  const working = Array.from({ length: VISITORS * 2 }, (_, place) => worker(place % VISITORS))
  const reached = async (what: () => boolean): Promise<void> => {
    while (!what()) await new Promise(resolve => setTimeout(resolve, 10))
  }
  await reached(() => succeeded.before > 30)
  await server.kill()
  phase = 'down'
  const refusals = (): number =>
    Object.entries(answers).reduce((sum, [kind, times]) => sum + (kind === '200 OK' ? 0 : times), 0)
  await reached(() => refusals() > 10)
  await server.start()
  phase = 'after'
  await Promise.all(working)
  await torture.calm()

  expect(Object.keys(answers).filter(kind => !/^(200|503) /.test(kind))).toEqual([])
  const { problems, effects } = await torture.verify()
  expect(problems).toEqual([])
  expect(effects).toBeGreaterThan(90)
  expect(served.tx.stats().settled.unknown).toBe(0)
  expect(served.errors).toEqual([])
}, 60_000)
