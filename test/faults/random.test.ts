/**
 * Random faults under load, for as long as it takes to have had as many as FAULTS says: COMMITs, records and the
 * resolver's own statements that are lost on the way, late, or not answered; connections and the whole line cut;
 * connections killed; the server killed and started again. Afterwards each effect is there once or not at all, and every
 * session agrees with the rows. `npm run test:faults` has more of them, and repeats a run by its seed.
 */
import mysql, { type Connection, type RowDataPacket } from 'mysql2/promise'
import { ownServer, type OwnServer } from '../support/own-server.js'
import { type Accident, openProxy, type Proxy } from '../support/proxy.js'
import { randomOf, sleep } from '../support/random.js'
import { openTorture, type Torture } from '../support/torture.js'

const FAULTS = Number(process.env['FAULTS'] ?? 60)
const SEED = Number(process.env['FAULT_SEED'] ?? Math.trunc(Math.random() * 2 ** 32))
const VISITORS = 10
const WORKERS = 16
/** A fault that nothing ran into is counted as none. */
const HAPPENS_MS_MAX = 3_000

let server: OwnServer
let proxy: Proxy
let admin: Connection
let torture: Torture

beforeAll(async () => {
  server = await ownServer()
  proxy = await openProxy(server.url)
  admin = await mysql.createConnection(server.url)
  const options = { retry: { deadlineMs: 2_500 }, acquireMs: 1_500 }
  torture = await openTorture(proxy.url, server.url, VISITORS, options)
}, 120_000)
afterAll(async () => {
  await torture.close()
  await admin.end().catch(() => {})
  await proxy.close()
  await server.close()
})

const random = randomOf(SEED)
const pick = <T>(from: readonly T[]): T => from[Math.trunc(random() * from.length)]!

const COMMIT = /^COMMIT$/
const BROKEN: readonly Accident[] = ['answer lost', 'command lost']

/** Each injects one fault and resolves when it has happened; false if nothing ran into it in time. */
const KINDS: Readonly<Record<string, { readonly weight: number; inject(): Promise<boolean> }>> = {
  'COMMIT: answer lost': { weight: 8, inject: () => accident(COMMIT, 'answer lost') },
  'COMMIT: lost': { weight: 8, inject: () => accident(COMMIT, 'command lost') },
  'COMMIT: late': { weight: 4, inject: () => accident(COMMIT, 'command late', sleep(random() * 1_500)) },
  'COMMIT: never arrives': { weight: 2, inject: () => accident(COMMIT, 'command late') },
  'COMMIT: no answer': { weight: 1, inject: () => accident(COMMIT, pick(['answer late', 'stuck'])) },
  'COMMIT: killed': { weight: 4, inject: killAtCommit },
  'record lost': { weight: 3, inject: () => accident(/^UPDATE sessiontx_commits SET seq/, pick(BROKEN)) },
  'work lost': { weight: 2, inject: () => accident(/^(?:INSERT INTO effect|UPDATE counter)/, pick(BROKEN)) },
  'slot lost': { weight: 1, inject: () => accident(/^INSERT INTO sessiontx_commits/, pick(BROKEN)) },
  'COMMIT and its resolver': { weight: 3, inject: both },
  'line cut': { weight: 2, inject: cut },
  'connections killed': { weight: 2, inject: killAll },
}

async function accident(matches: RegExp, kind: Accident, letThrough?: Promise<void>): Promise<boolean> {
  const happened = proxy.accident(matches, kind, letThrough).then(() => true)
  return Promise.race([happened, sleep(HAPPENS_MS_MAX).then(() => false)])
}

async function both(): Promise<boolean> {
  const second = pick([/^SELECT seq, txid.* FOR UPDATE$/, /state = 'A'/, /^SHOW SESSION VARIABLES/])
  void proxy.accident(second, pick(BROKEN))
  return accident(COMMIT, pick([...BROKEN, 'command late']))
}

async function cut(): Promise<boolean> {
  proxy.cut(true)
  await sleep(20 + random() * 600)
  proxy.cut(false)
  return true
}

async function threads(): Promise<number[]> {
  const [rows] = await admin.query<(RowDataPacket & { ID: number })[]>(
    'SELECT ID FROM information_schema.processlist WHERE DB IS NOT NULL AND ID <> CONNECTION_ID()',
  )
  return rows.map(({ ID }) => ID)
}

async function killAll(): Promise<boolean> {
  const killed = await threads()
  for (const id of killed) await admin.query(`KILL ${id}`).catch(() => {})
  return killed.length > 0
}

/** Right when one is on its way; whether KILL or COMMIT is faster is the server's secret. */
async function killAtCommit(): Promise<boolean> {
  const present = await threads()
  return new Promise(resolve => {
    proxy.onCommand = command => {
      if (command !== 'COMMIT') return
      proxy.onCommand = () => {}
      const kills = present.map(id => admin.query(`KILL ${id}`).catch(() => {}))
      void Promise.all(kills).then(() => resolve(true))
    }
    void sleep(HAPPENS_MS_MAX).then(() => {
      proxy.onCommand = () => {}
      resolve(false)
    })
  })
}

async function restart(): Promise<void> {
  await server.kill()
  await sleep(random() * 300)
  await server.start()
  await admin.end().catch(() => {})
  admin = await mysql.createConnection(server.url)
}

test(
  `${FAULTS} faults: each effect once or not at all, and every session agrees`,
  async () => {
    process.stdout.write(
      `\nseed ${SEED}: repeat it by npm run test:faults -- --seed ${SEED} --faults ${FAULTS}\n`,
    )
    const deck = Object.keys(KINDS).flatMap(name => Array<string>(KINDS[name]?.weight ?? 0).fill(name))
    const happened: Record<string, number> = {}
    let over = false
    const worker = async (): Promise<void> => {
      while (!over) await torture.request(Math.trunc(Math.random() * VISITORS))
    }
    const working = Array.from({ length: WORKERS }, worker)
    const started = Date.now()
    const failed = Promise.all(working) // a request that ends in anything but 200 or 503 ends the test
    const faults = async (): Promise<void> => {
      for (let count = 0; count < FAULTS; ) {
        const name = pick(deck)
        if (await KINDS[name]?.inject()) {
          happened[name] = (happened[name] ?? 0) + 1
          count += 1
          if (count % 50 === 25) {
            await restart()
            happened['server killed'] = (happened['server killed'] ?? 0) + 1
          }
        }
        await sleep(random() * 60)
      }
    }
    try {
      await Promise.race([faults(), failed])
    } finally {
      over = true
    }
    await failed
    proxy.forget()
    await torture.calm()

    const { problems, effects } = await torture.verify()
    const { settled, requests, conflicts } = torture.served.tx.stats()
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    const figures = {
      seconds,
      happened,
      answers: torture.answers,
      settled,
      late: torture.settled.filter(({ late }) => late).length,
      requests,
      connectionConflicts: conflicts.byKind.connection,
      effects,
      problems: problems.length,
    }
    process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`)
    expect(problems).toEqual([])
    expect(Object.keys(torture.answers).filter(kind => !/^(200|503) /.test(kind))).toEqual([])
    expect(settled.unknown).toBe(0)
    expect(settled.committed).toBeGreaterThan(0)
    expect(settled.rolledBack).toBeGreaterThan(0)
    expect(torture.served.tx.stats().commitsLost).toBe(0)
    expect(Object.values(happened).reduce((sum, times) => sum + times, 0)).toBeGreaterThanOrEqual(FAULTS)
  },
  30_000 + FAULTS * 3_000,
)
