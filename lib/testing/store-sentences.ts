/**
 * The store contract about sessions, snapshots, what disturbs them, and time. Claims have a file of their own.
 */
import assert from 'node:assert/strict'
import { EventHub } from '../events.js'
import { NAMES, WHOLE } from '../session/store.js'
import { ManualClock } from './manual-clock.js'
import { Writer } from './session-writer.js'
import {
  type StoreCapabilities,
  type StoreFactory,
  benchOf,
  GRANULARITY_MS,
  IDLE_MS,
  type Sentence,
  settingsOf,
} from './store-bench.js'

const ABSOLUTE_MS = 90_000

export function existence(sentence: Sentence, factory: StoreFactory, { local }: StoreCapabilities): void {
  sentence('is not there before it was stored', async ({ store, key }) => {
    assert.equal(await store.open(key), undefined)
  })

  sentence('is stored by the commit of its claim, not by being created', async bench => {
    const { store, key } = bench
    const writer = (await Writer.creating(bench, key)).wants({ set: { a: 1 } })
    assert.equal(writer.base.version, 0)
    await writer.claim.prepare()
    await writer.finish()
    const open = await store.open(key)
    assert.equal(open?.snapshot().get('a')?.value, 1)
    open?.release()
  })

  sentence('is not stored by a claim that was rolled back', async bench => {
    const { store, key } = bench
    const writer = (await Writer.creating(bench, key)).wants({ set: { a: 1 } })
    await writer.claim.prepare()
    await writer.abort()
    assert.equal(await store.open(key), undefined)
  })

  sentence('keeps every kind of value', async ({ write, read }) => {
    const values = {
      text: 'ä\0"',
      number: -0.5,
      nothing: null,
      yes: true,
      big: 12345678901234567890n,
      at: new Date(5),
      bytes: new Uint8Array([1, 2]),
      map: new Map<unknown, unknown>([[1, { a: [1] }]]),
      set: new Set(['x']),
      nested: { list: [{ at: new Date(6) }], ['__proto__']: 1 },
    }
    await write({ set: values })
    for (const [variable, value] of Object.entries(values))
      assert.deepEqual(await read(variable), value, variable)
  })

  sentence('may have variables named like members of every object', async ({ write, read, look }) => {
    await write({ set: { ['__proto__']: 1, constructor: 2, toString: 3, hasOwnProperty: 4 } })
    assert.deepEqual(
      [await read('__proto__'), await read('constructor'), await read('toString'), await read('valueOf')],
      [1, 2, 3, undefined],
    )
    assert.equal(await look(session => session.snapshot().names().includes('__proto__')), true)
  })

  sentence('is gone when destroyed, and stays gone for who still has it open', async bench => {
    await bench.write({ set: { a: 1 } })
    const late = (await bench.writer()).wants({ set: { a: 2 } })
    await bench.write({ destroys: true })
    assert.equal(await bench.store.open(bench.key), undefined)
    assert.equal(late.open.ended, true)
    assert.equal(late.base.get('a')?.value, 1)
    await assert.rejects(late.commit(), { code: 'CONFLICT' })
    assert.equal(late.lost[0]?.[0]?.part, WHOLE)
    assert.equal(await bench.store.open(bench.key), undefined)
    assert.deepEqual(
      bench.seen.map(({ name }) => name),
      ['session:destroyed'],
    )
  })

  sentence('counts while it is stored', async ({ store, write }) => {
    const before = store.counts()
    await write({ set: { a: 'x'.repeat(1_000) } })
    const with1 = store.counts()
    assert.equal(with1.live, before.live + 1)
    assert.ok(with1.sizeBytes >= before.sizeBytes + 1_000)
    await write({ destroys: true })
    assert.equal(store.counts().live, before.live)
  })

  sentence('belongs to one sessionTx(): a second start is refused', async ({ store }) => {
    assert.throws(() => store.start(settingsOf(new ManualClock(), new EventHub())), { code: 'MISCONFIGURED' })
  })

  const elsewhere = local ? 'is unknown to another store' : 'is known to another store'
  sentence(elsewhere, async ({ write, key }) => {
    await write({ set: { a: 1 } })
    const other = await benchOf(await factory(), {})
    try {
      const open = await other.store.open(key)
      assert.equal(open?.snapshot().get('a')?.value, local ? undefined : 1)
      open?.release()
    } finally {
      await other.store.close()
    }
  })

  if (!local) return
  sentence('is opened, claimed and committed without waiting for anything', async bench => {
    const { store, key } = bench
    await bench.write({ set: { a: 1 } })
    const open = store.open(key)
    assert.ok(open !== undefined && !('then' in open))
    open.release()
    const writer = (await Writer.of(bench, key)).wants({ set: { a: 2 } })
    assert.equal(writer.claim.prepare(), undefined)
    assert.equal(writer.claim.commit(), undefined)
    writer.claim.release()
    writer.open.release()
  })
}

export function snapshots(sentence: Sentence): void {
  sentence(
    'numbers commits per session, and variables by the commit that wrote them',
    async ({ write, look }) => {
      await write({ set: { a: 1, b: 1 }, by: 'first' })
      await write({ set: { b: 2 }, by: 'second' })
      const seen = await look(session => session.snapshot())
      assert.equal(seen?.version, 2)
      assert.deepEqual([seen.get('a')?.version, seen.get('a')?.by], [1, 'first'])
      assert.deepEqual([seen.get('b')?.version, seen.get('b')?.by], [2, 'second'])
      assert.equal(seen.get('c'), undefined)
    },
  )

  sentence('stays as it was whatever others commit', async ({ write, writer }) => {
    await write({ set: { a: { n: 1 }, b: 1, c: 1 } })
    const reader = await writer()
    await write({ set: { a: { n: 2 } } })
    await write({ set: { b: undefined, d: 1 } })
    await write({ set: { a: { n: 3 } } })
    assert.deepEqual(reader.base.get('a')?.value, { n: 1 })
    assert.equal(reader.base.get('b')?.value, 1)
    assert.equal(reader.base.get('d'), undefined)
    assert.deepEqual(reader.base.names().sort(), ['a', 'b', 'c'])
    const now = reader.open.snapshot()
    assert.deepEqual([now.get('a')?.value, now.get('b'), now.get('d')?.value], [{ n: 3 }, undefined, 1])
    assert.deepEqual(now.names().sort(), ['a', 'c', 'd'])
    reader.open.release()
  })

  sentence('stays as it was when the session is destroyed', async ({ write, writer }) => {
    await write({ set: { a: 1 } })
    const reader = await writer()
    await write({ destroys: true })
    assert.equal(reader.base.get('a')?.value, 1)
    assert.deepEqual(reader.base.names(), ['a'])
    reader.open.release()
  })

  sentence('sees nothing of a claim that is only prepared', async ({ write, writer, read }) => {
    await write({ set: { a: 1 } })
    const held = (await writer()).wants({ set: { a: 2 } })
    await held.claim.prepare()
    assert.equal(await read('a'), 1)
    await held.finish()
    assert.equal(await read('a'), 2)
  })

  sentence('knows the size of the session', async ({ write, look }) => {
    await write({ set: { a: 'x'.repeat(100), b: 1 } })
    const two = await look(session => session.snapshot().sizeBytes)
    await write({ set: { a: undefined } })
    const one = await look(session => session.snapshot().sizeBytes)
    assert.ok(two !== undefined && one !== undefined && two - one >= 100 && one >= 1)
  })
}

export function disturbances(sentence: Sentence, { local }: StoreCapabilities): void {
  sentence('is nothing as long as nobody commits', async ({ write, look }) => {
    await write({ set: { a: 1 } })
    const found = await look(session => session.disturbance(session.snapshot()))
    assert.equal(found?.none, true)
    assert.equal(found.has('a'), false)
  })

  sentence('is each variable that was committed since', async ({ write, writer }) => {
    await write({ set: { a: 1, b: 1 } })
    const reader = await writer()
    await write({ set: { a: 2 } })
    const found = reader.open.disturbance(reader.base)
    assert.deepEqual(
      [found.none, found.has('a'), found.has('b'), found.has(NAMES)],
      [false, true, false, false],
    )
    reader.open.release()
  })

  sentence('is the set of names when one came or went', async ({ write, writer }) => {
    await write({ set: { a: 1 } })
    const reader = await writer()
    await write({ set: { b: 1 } })
    const found = reader.open.disturbance(reader.base)
    assert.deepEqual([found.has('a'), found.has('b'), found.has(NAMES)], [false, true, true])
    reader.open.release()
  })

  for (const [text, wish] of [
    ['replaced', { replaces: true, set: { a: 2 } }],
    ['destroyed', { destroys: true }],
  ] as const) {
    sentence(`is everything when the session was ${text}`, async ({ write, writer }) => {
      await write({ set: { a: 1, b: 1 } })
      const reader = await writer()
      await write(wish)
      const found = reader.open.disturbance(reader.base)
      assert.deepEqual([found.has('a'), found.has('b'), found.has(NAMES)], [true, true, true])
      reader.open.release()
    })
  }

  if (!local) return
  sentence('is also what a prepared claim holds, until it is rolled back', async ({ write, writer }) => {
    await write({ set: { a: 1, b: 1 } })
    const reader = await writer()
    const held = (await writer()).wants({ set: { a: 2 }, current: ['b'] })
    await held.claim.prepare()
    const found = reader.open.disturbance(reader.base)
    assert.deepEqual([found.none, found.has('a'), found.has('b')], [false, true, false])
    await held.abort()
    assert.equal(reader.open.disturbance(reader.base).none, true)
    reader.open.release()
  })
}

export function time(sentence: Sentence, { injectedClock }: StoreCapabilities): void {
  sentence('moves the idle time at most once per granularity', async bench => {
    await bench.write({ set: { a: 1 } })
    bench.clock.advance(GRANULARITY_MS)
    assert.deepEqual(await bench.look(session => [session.touch(), session.touch()]), [true, false])
  })

  sentence(
    'never ends a session where nothing expires',
    async bench => {
      await bench.write({ set: { a: 1 } })
      bench.clock.advance(30 * 86_400_000)
      assert.equal(await bench.read('a'), 1)
    },
    { idleMs: false, absoluteMs: false },
  )

  if (!injectedClock) {
    sentence('is the back-end’s own: the clock of start() ends no session', async bench => {
      await bench.write({ set: { a: 1 } })
      bench.clock.advance(IDLE_MS + 2 * GRANULARITY_MS)
      assert.equal(await bench.read('a'), 1)
    })
    return
  }

  sentence('ends an idle session, never early and late by at most the granularity', async bench => {
    await bench.write({ set: { a: 1 } })
    bench.clock.advance(IDLE_MS - 1)
    assert.equal(await bench.read('a'), 1)
    bench.clock.advance(1 + GRANULARITY_MS)
    assert.equal(await bench.store.open(bench.key), undefined)
    assert.deepEqual(
      bench.seen.map(({ name }) => name),
      ['session:expired'],
    )
    assert.equal(bench.store.counts().live, 0)
  })

  sentence('does not end an idle session that is touched', async bench => {
    await bench.write({ set: { a: 1 } })
    for (let round = 0; round < 5; round++) {
      bench.clock.advance(IDLE_MS - 1)
      await bench.look(session => session.touch())
    }
    assert.equal(await bench.read('a'), 1)
  })

  sentence(
    'ends a session at its absolute age, however busy it is',
    async bench => {
      await bench.write({ set: { a: 1 } })
      bench.clock.advance(ABSOLUTE_MS - IDLE_MS)
      await bench.look(session => session.touch())
      bench.clock.advance(IDLE_MS - 1)
      assert.equal(await bench.look(session => session.touch()), true)
      bench.clock.advance(1 + GRANULARITY_MS)
      assert.equal(await bench.store.open(bench.key), undefined)
    },
    { absoluteMs: ABSOLUTE_MS },
  )

  sentence('does not end a session that an attempt has open', async bench => {
    await bench.write({ set: { a: 1 } })
    const slow = (await bench.writer()).wants({ set: { a: 2 } })
    bench.clock.advance(100 * IDLE_MS)
    assert.equal(slow.base.get('a')?.value, 1)
    await slow.commit()
    assert.equal(await bench.read('a'), 2)
  })
}
