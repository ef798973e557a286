/**
 * What each isolation option stops and what it lets through: every schedule on the bare server, and through session-tx
 * with one item in the session and the other in a row. The tables of docs/isolation.md are what is seen here;
 * `ISOLATION_TABLES=write npm test -- test/isolation` writes them.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import mysql, { type Pool } from 'mysql2/promise'
import { type SessionTx, sessionTx } from '../../lib/index.js'
import { root } from '../docs/markdown.js'
import { promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { openOlderServer, type OlderServer } from '../support/older-server.js'
import { type Placement, playJoint } from './joint.js'
import { type Outcome, wordFor } from './player.js'
import { playRaw } from './raw.js'
import { type Schedule, SCHEDULES } from './schedules.js'

const OPTIONS = ['read committed', 'repeatable read', 'snapshot', 'serializable'] as const
/** The last one is `snapshot` on a server that has no snapshot isolation. */
const LEVELS = [...OPTIONS, 'snapshot, older server'] as const
type Level = (typeof LEVELS)[number]

/** What a lease sets, as test/koa/server-errors.test.ts sees it on the wire. */
const SETTINGS: Readonly<Record<Level, string>> = {
  'read committed': "SESSION tx_isolation = 'READ-COMMITTED'",
  'repeatable read': "SESSION tx_isolation = 'REPEATABLE-READ'",
  snapshot: "SESSION tx_isolation = 'REPEATABLE-READ', SESSION innodb_snapshot_isolation = 1",
  serializable: "SESSION tx_isolation = 'SERIALIZABLE', SESSION innodb_snapshot_isolation = 1",
  'snapshot, older server': "SESSION tx_isolation = 'SERIALIZABLE', SESSION innodb_snapshot_isolation = 0",
}

const PLACEMENTS: Readonly<Record<string, Placement>> = {
  'x is a variable, y a row': item => (item === 'x' || item === 'z' ? 'variable' : 'row'),
  'x is a row, y a variable': item => (item === 'x' || item === 'z' ? 'row' : 'variable'),
}
const BARE = 'both are rows, in plain SQL'
const PLACES = [BARE, ...Object.keys(PLACEMENTS)]

let db: TestDatabase
let older: OlderServer
const pools: Pool[] = []
const transactions = new Map<Level, SessionTx>()

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE item (name VARCHAR(8) PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  older = await openOlderServer(db.url, 'innodb_snapshot_isolation')
  for (const level of LEVELS) {
    const isOlder = level === 'snapshot, older server'
    const pool = mysql.createPool({ uri: isOlder ? older.url : db.url })
    pools.push(pool)
    const isolation = isOlder ? 'snapshot' : level
    transactions.set(level, sessionTx({ pool, isolation, retry: { retries: 20 } }, promptly))
  }
})
afterAll(async () => {
  for (const tx of transactions.values()) await tx.close()
  for (const pool of pools) await pool.end()
  await older.close()
  await db.close()
})

const outcomes = new Map<string, Promise<Outcome>>()
/** Played once, whoever asks, and one after the other. */
function outcomeOf(place: string, schedule: Schedule, level: Level): Promise<Outcome> {
  const key = `${place}/${schedule.name}/${level}`
  const placement = PLACEMENTS[place]
  const known =
    outcomes.get(key) ??
    (placement === undefined
      ? playRaw(db, schedule, SETTINGS[level])
      : playJoint(db, transactions.get(level) as SessionTx, schedule, placement))
  outcomes.set(key, known)
  return known
}

/** The schedules whose anomaly an option promises to stop, also by running again; each level adds to the one before. */
const PROMISED: Readonly<Record<Level, readonly string[]>> = (() => {
  const committed = ['G0', 'G1a', 'G1b', 'G1c']
  const repeatable = [...committed, 'OTV', 'PMP', 'G-single', 'G-single, predicate dependencies']
  const writes = ['PMP, write predicate', 'P4', 'G-single, write predicate 1', 'G-single, write predicate 2']
  const all = SCHEDULES.map(({ name }) => name)
  return {
    'read committed': committed,
    'repeatable read': repeatable,
    snapshot: [...repeatable, ...writes],
    serializable: all,
    'snapshot, older server': all,
  }
})()

describe.each(PLACES)('%s', place => {
  test.each(LEVELS)('%s keeps its promises, and everybody who may commit does in the end', async level => {
    const broken: string[] = []
    for (const schedule of SCHEDULES) {
      const { anomaly, history } = await outcomeOf(place, schedule, level)
      if (anomaly && PROMISED[level].includes(schedule.name)) broken.push(schedule.name)
      if (place === BARE) continue
      const may = new Set(schedule.steps.flatMap(([who, { does }]) => (does === 'commit' ? [who] : [])))
      expect([schedule.name, Object.keys(history.seen).sort()]).toEqual([schedule.name, [...may].sort()])
    }
    expect(broken).toEqual([])
  })
})

test('each anomaly is seen somewhere, but for those that no level lets through', async () => {
  const seen = new Set<string>()
  for (const schedule of SCHEDULES)
    for (const place of PLACES)
      for (const level of LEVELS)
        if ((await outcomeOf(place, schedule, level)).anomaly) seen.add(schedule.name)
  const never = SCHEDULES.map(({ name }) => name).filter(name => !seen.has(name))
  expect(never).toEqual(['G0', 'G1a', 'G1b', 'G1c', 'OTV'])
})

const PAGE = resolve(root, 'docs/isolation.md')
const REGION = /(?<=<!-- seen by test\/isolation -->\n)[\s\S]*?(?=<!-- \/seen by test\/isolation -->)/

test('docs/isolation.md has exactly what was seen', async () => {
  const text = readFileSync(PAGE, 'utf8')
  expect(text).toMatch(REGION)
  const seen = await tables()
  if (process.env['ISOLATION_TABLES'] === 'write') writeFileSync(PAGE, text.replace(REGION, seen))
  else expect(REGION.exec(text)?.[0]).toBe(seen)
})

async function tables(): Promise<string> {
  let text = '\n| anomaly | what goes wrong |\n|---|---|\n'
  for (const { name, sentence } of SCHEDULES) text += `| ${name} | ${sentence} |\n`
  for (const place of PLACES) {
    text += `\n### Seen where ${place}\n\n`
    text += `| anomaly | ${LEVELS.join(' | ')} |\n|${'---|'.repeat(LEVELS.length + 1)}\n`
    for (const schedule of SCHEDULES) {
      const words: string[] = []
      for (const level of LEVELS) words.push(wordFor(await outcomeOf(place, schedule, level)))
      text += `| ${schedule.name} | ${words.join(' | ')} |\n`
    }
  }
  return `${text}\n`
}
