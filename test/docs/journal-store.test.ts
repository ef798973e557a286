/**
 * The store that docs/writing-a-store.md writes, as the page has it: it keeps the contract, and what the page promises
 * beyond it.
 */
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SessionStore } from '../../lib/index.js'
import * as library from '../../lib/index.js'
import { EventHub } from '../../lib/events.js'
import { settingsOf } from '../../lib/testing/store-bench.js'
import { ManualClock } from '../../lib/testing/manual-clock.js'
import { Writer } from '../../lib/testing/session-writer.js'
import { storeContract } from '../../lib/testing/index.js'
import { exportsOf } from './examples.js'
import { readPage } from './markdown.js'

interface PageExports {
  readonly journalStore: (file: string) => SessionStore
}

/** What the disk does, once it is full. */
let isFull = false
const disk = {
  ...fs,
  appendFileSync: (...given: Parameters<typeof fs.appendFileSync>) => {
    if (isFull) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
    fs.appendFileSync(...given)
  },
}
const page = readPage('docs/writing-a-store.md')
const { journalStore } = exportsOf(page, { 'node:fs': disk, 'session-tx': library }) as PageExports

const folder = fs.mkdtempSync(join(tmpdir(), 'session-tx-journal-'))
afterAll(() => fs.rmSync(folder, { recursive: true }))
let files = 0
const newFile = (): string => join(folder, `journal-${++files}`)

storeContract('the journal store of the manual', () => journalStore(newFile()), {
  local: true,
  injectedClock: true,
  countsCommits: true,
  parallelClaims: true,
  findsUsers: false,
})

function started(file: string, clock = new ManualClock()): SessionStore {
  const store = journalStore(file)
  store.start(settingsOf(clock, new EventHub()))
  return store
}

async function write(
  store: SessionStore,
  key: string,
  set: Readonly<Record<string, unknown>>,
): Promise<void> {
  const from = { store }
  const exists = store.open(key) as library.OpenSession | undefined
  exists?.release()
  const writer = exists === undefined ? await Writer.creating(from, key) : await Writer.of(from, key)
  await writer.wants({ set }).commit()
}

function variablesOf(store: SessionStore, key: string): Readonly<Record<string, unknown>> | undefined {
  const session = store.open(key) as library.OpenSession | undefined
  if (session === undefined) return undefined
  const snapshot = session.snapshot()
  session.release()
  return Object.fromEntries(snapshot.names().map(name => [name, snapshot.get(name)?.value]))
}

test('sessions are there after a restart, as the last commit left them', async () => {
  const file = newFile()
  const before = started(file)
  await write(before, 'kept', { count: 1, gone: 1, map: new Map([[1, new Date(2)]]) })
  await write(before, 'kept', { count: 2, gone: undefined })
  await write(before, 'ended', { count: 1 })
  await (await Writer.of({ store: before }, 'ended')).wants({ destroys: true }).commit()
  await before.close()
  const after = started(file)
  expect(variablesOf(after, 'kept')).toEqual({ count: 2, map: new Map([[1, new Date(2)]]) })
  expect(variablesOf(after, 'ended')).toBeUndefined()
  await write(after, 'kept', { count: 3 })
  expect(variablesOf(after, 'kept')).toMatchObject({ count: 3 })
  await after.close()
})

test('a process that is killed has written what it committed; a line that it did not finish is left out', async () => {
  const file = newFile()
  const killed = started(file)
  await write(killed, 'kept', { count: 1 })
  fs.appendFileSync(file, '{"key":"kept","writes":[["cou')
  const after = started(file)
  expect(variablesOf(after, 'kept')).toEqual({ count: 1 })
  await after.close()
  await killed.close()
})

test('a line that is none is refused at start-up, without a word of what it says', () => {
  const file = newFile()
  fs.writeFileSync(file, 'secret\n')
  expect(() => started(file)).toThrow(
    expect.objectContaining({ code: 'STORE_UNAVAILABLE', message: expect.not.stringContaining('secret') }),
  )
})

test('an idle session ends while the process is down; one that was touched in time does not', async () => {
  const file = newFile()
  const clock = new ManualClock()
  const before = started(file, clock)
  await write(before, 'idle', { a: 1 })
  await write(before, 'busy', { a: 1 })
  clock.advance(40_000)
  const busy = before.open('busy') as library.OpenSession
  busy.touch()
  busy.release()
  await before.close()
  clock.advance(40_000)
  const after = started(file, clock)
  expect([variablesOf(after, 'idle'), variablesOf(after, 'busy')]).toEqual([undefined, { a: 1 }])
  await after.close()
})

test('a full disk refuses the next request, and what was committed is written as soon as there is room', async () => {
  const file = newFile()
  const clock = new ManualClock()
  const store = started(file, clock)
  await write(store, 'kept', { count: 1 })
  try {
    isFull = true
    await write(store, 'kept', { count: 2 })
    expect(() => store.open('kept')).toThrow(expect.objectContaining({ code: 'STORE_UNAVAILABLE' }))
    expect(() => store.create('new')).toThrow(expect.objectContaining({ code: 'STORE_UNAVAILABLE' }))
  } finally {
    isFull = false
  }
  clock.advance(60_000)
  expect(variablesOf(store, 'kept')).toEqual({ count: 2 })
  await store.close()
  const after = started(file, clock)
  expect(variablesOf(after, 'kept')).toEqual({ count: 2 })
  await after.close()
})

test('the file is written anew when it has grown: one line for each session', async () => {
  const file = newFile()
  const clock = new ManualClock()
  const store = started(file, clock)
  for (let count = 0; count < 20; count++) await write(store, 'kept', { count })
  const lines = (): number => fs.readFileSync(file, 'utf8').split('\n').length - 1
  expect(lines()).toBe(20)
  clock.advance(60_000 - 1)
  await write(store, 'kept', { count: 20 })
  clock.advance(1)
  expect(lines()).toBe(1)
  await write(store, 'kept', { count: 21 })
  await store.close()
  const after = started(file, clock)
  expect(variablesOf(after, 'kept')).toEqual({ count: 21 })
  await after.close()
})

test('a request of a store that cannot answer is answered 503 and sets no cookie', async () => {
  const { default: Koa } = await import('koa')
  const { default: request } = await import('supertest')
  const file = newFile()
  const tx = library.sessionTx({ store: journalStore(file), retry: { retries: 0 } })
  const app = new Koa<object, library.SessionTxContext>()
  app.silent = true
  app.use(tx)
  app.use(ctx => {
    ctx.session['count'] = Number(ctx.session['count'] ?? 0) + 1
    ctx.body = String(ctx.session['count'])
  })
  const server = app.listen(0)
  try {
    const browser = request.agent(server)
    expect((await browser.get('/')).text).toBe('1')
    isFull = true
    expect((await browser.get('/')).text).toBe('2')
    const refused = await browser.get('/')
    expect([refused.status, refused.get('set-cookie')]).toEqual([503, undefined])
  } finally {
    isFull = false
    await new Promise(resolve => server.close(resolve))
    await tx.close()
  }
})
