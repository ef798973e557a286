/**
 * The store contract about claims: what loses, what is merged, who waits for whom.
 */
import assert from 'node:assert/strict'
import { NAMES, WHOLE } from '../session/store.js'
import { type Sentence, type StoreCapabilities, turn, watched } from './store-bench.js'

export function claims(sentence: Sentence, { local, countsCommits }: StoreCapabilities): void {
  sentence('that lost says which variables, which versions and who won, all of them at once', async bench => {
    await bench.write({ set: { a: 1, b: 1, c: 1 }, by: 'first' })
    const loser = (await bench.writer()).wants({ set: { a: 9, b: 9, c: 9 }, by: 'loser' })
    await bench.write({ set: { a: 2 }, by: 'second' })
    await bench.write({ set: { b: 2 }, by: 'third' })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    const lost = loser.lost
      .at(-1)
      ?.map(({ part, baseVersion, foundVersion, winner }) => [part, baseVersion, foundVersion, winner])
    assert.deepEqual(lost, [
      ['a', 1, 2, 'second'],
      ['b', 1, countsCommits ? 3 : 2, 'third'],
    ])
    assert.deepEqual([await bench.read('a'), await bench.read('c')], [2, 1])
  })

  sentence('to a variable that did not exist loses to whoever made it', async bench => {
    await bench.write({ set: { a: 1 } })
    const loser = (await bench.writer()).wants({ set: { b: 2 } })
    await bench.write({ set: { b: 1 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    assert.equal(loser.lost[0]?.[0]?.baseVersion, 0)
    assert.equal(await bench.read('b'), 1)
  })

  sentence('loses to the removal of the variable', async bench => {
    await bench.write({ set: { a: 1 } })
    const loser = (await bench.writer()).wants({ set: { a: 2 } })
    await bench.write({ set: { a: undefined } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    assert.equal(await bench.read('a'), undefined)
  })

  sentence('loses for what it only read and must be current, and says that it only read it', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const loser = (await bench.writer()).wants({ set: { b: 2 }, current: ['a'] })
    await bench.write({ set: { a: 2 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    assert.deepEqual([loser.lost[0]?.[0]?.part, loser.lost[0]?.[0]?.onlyRead], ['a', true])
    assert.equal(await bench.read('b'), 1)
  })

  sentence('for the set of names loses when a name came, not when a value changed', async bench => {
    await bench.write({ set: { a: 1 } })
    const winner = (await bench.writer()).wants({ set: { mine: 1 }, current: [NAMES] })
    await bench.write({ set: { a: 2 } })
    await winner.commit()
    const loser = (await bench.writer()).wants({ set: { mine: 2 }, current: [NAMES] })
    await bench.write({ set: { b: 1 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    assert.equal(loser.lost[0]?.[0]?.part, NAMES)
  })

  sentence('is merged where it resolves, with what is found then', async bench => {
    await bench.write({ set: { a: 1 } })
    const add = (found: unknown, mine: unknown): unknown => Number(found) + Number(mine)
    const merging = (await bench.writer()).wants({ set: { a: 10 }, merge: { a: add } })
    await bench.write({ set: { a: 5 } })
    await merging.commit()
    assert.equal(await bench.read('a'), 15)
  })

  sentence('whose resolver throws loses, with that as the cause', async bench => {
    await bench.write({ set: { a: 1 } })
    const no = new Error('no')
    const loser = (await bench.writer()).wants({
      set: { a: 10 },
      merge: {
        a: () => {
          throw no
        },
      },
    })
    await bench.write({ set: { a: 5 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT', cause: no })
    assert.equal(await bench.read('a'), 5)
  })

  sentence('that replaces the session loses to any commit since', async bench => {
    await bench.write({ set: { a: 1 } })
    const loser = (await bench.writer()).wants({ replaces: true, set: { a: undefined, b: 1 } })
    await bench.write({ set: { other: 1 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    assert.equal(loser.lost[0]?.[0]?.part, WHOLE)
    assert.equal(await bench.read('a'), 1)
  })

  sentence('that destroys never loses, and ends the session once', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    one.wants({ destroys: true })
    two.wants({ destroys: true })
    await bench.write({ set: { a: 2 } })
    await one.commit()
    await two.commit()
    assert.equal(await bench.store.open(bench.key), undefined)
    assert.equal(bench.seen.filter(({ name }) => name === 'session:destroyed').length, 1)
  })

  sentence('that lost leaves nothing held', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const loser = (await bench.writer()).wants({ set: { a: 2, b: 2 } })
    await bench.write({ set: { b: 3 } })
    await assert.rejects(loser.commit())
    await bench.write({ set: { a: 4, b: 4 } })
    assert.deepEqual([await bench.read('a'), await bench.read('b')], [4, 4])
  })

  if (!local) staleness(sentence)
}

/** What a shared store handed out may have been old: its claims find out. */
function staleness(sentence: Sentence): void {
  sentence('finds out that what was read has changed, and says that it may have been old', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const reader = (await bench.writer()).wants({ joint: true, seen: ['a'] })
    const other = (await bench.writer()).wants({ joint: true, seen: ['b'] })
    await bench.write({ set: { a: 2 } })
    await assert.rejects(reader.commit(), { code: 'CONFLICT' })
    assert.deepEqual([reader.lost[0]?.[0]?.part, reader.lost[0]?.[0]?.stale], ['a', true])
    await other.commit()
  })

  sentence('that writes finds out about what it only read, too', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const loser = (await bench.writer()).wants({ joint: true, set: { b: 2 }, seen: ['a', 'none'] })
    const other = (await bench.writer()).wants({ joint: true, set: { b: 3 }, seen: ['none', 'b'] })
    await bench.write({ set: { a: 2 } })
    await assert.rejects(loser.commit(), { code: 'CONFLICT' })
    await other.commit()
    assert.equal(await bench.read('b'), 3)
  })

  sentence('finds out that something is there now that was not when it was read', async bench => {
    await bench.write({ set: { a: 1 } })
    const reader = (await bench.writer()).wants({ joint: true, seen: ['late'] })
    const writer = (await bench.writer()).wants({ joint: true, set: { a: 2 }, seen: ['late'] })
    const lister = (await bench.writer()).wants({ joint: true, seen: [NAMES] })
    await bench.write({ set: { late: 1 } })
    await assert.rejects(reader.commit(), { code: 'CONFLICT' })
    await assert.rejects(writer.commit(), { code: 'CONFLICT' })
    await assert.rejects(lister.commit(), { code: 'CONFLICT' })
    assert.equal(await bench.read('a'), 1)
  })

  sentence('finds out that the session is gone', async bench => {
    await bench.write({ set: { a: 1 } })
    const reader = (await bench.writer()).wants({ joint: true, seen: ['a'] })
    await bench.write({ destroys: true })
    await assert.rejects(reader.commit(), { code: 'CONFLICT' })
    assert.equal(reader.lost[0]?.[0]?.part, WHOLE)
    assert.equal(reader.open.ended, true)
  })
}

export function concurrency(sentence: Sentence, { local, parallelClaims }: StoreCapabilities): void {
  if (parallelClaims) parallel(sentence)
  else inTurn(sentence)

  sentence('to one variable: the second waits for the first, and loses if that commits', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    const second = watched(two.wants({ set: { a: 3 } }).commit())
    await turn()
    assert.equal(second.state, 'pending')
    await one.finish()
    await assert.rejects(second.promise, { code: 'CONFLICT' })
    assert.equal(await bench.read('a'), 2)
  })

  sentence('to one variable: the second goes on if the first is rolled back', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    const second = watched(two.wants({ set: { a: 3 } }).commit())
    await turn()
    assert.equal(second.state, 'pending')
    await one.abort()
    await second.promise
    assert.equal(await bench.read('a'), 3)
  })

  sentence('that each read what the other writes: one of them loses', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    one.wants({ set: { a: 2 }, current: ['b'] })
    two.wants({ set: { b: 2 }, current: ['a'] })
    const ends = await Promise.allSettled([one.commit(), two.commit()])
    assert.deepEqual(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  })

  sentence('over the same variables named in any order do not block each other for ever', async bench => {
    await bench.write({ set: { a: 0, b: 0, c: 0 } })
    const orders = [
      ['a', 'b', 'c'],
      ['c', 'b', 'a'],
      ['b', 'c', 'a'],
      ['c', 'a', 'b'],
    ]
    const writers = await Promise.all(orders.map(() => bench.writer()))
    const first = (found: unknown): unknown => Number(found) + 1
    const merge = { a: first, b: first, c: first }
    const commits = writers.map((writer, index) => {
      const set = Object.fromEntries((orders[index] ?? []).map(name => [name, 1]))
      return writer.wants({ set, merge }).commit()
    })
    await Promise.all(commits)
    assert.deepEqual([await bench.read('a'), await bench.read('b'), await bench.read('c')], [4, 4, 4])
  })

  if (local) holds(sentence)
}

/** Different parts of a session at the same time. */
function parallel(sentence: Sentence): void {
  sentence('to different variables do not wait for each other, and both are kept', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    one.wants({ set: { a: 2 } })
    two.wants({ set: { b: 2 } })
    await one.claim.prepare()
    await two.claim.prepare()
    await two.finish()
    await one.finish()
    assert.deepEqual([await bench.read('a'), await bench.read('b')], [2, 2])
  })

  sentence('to new variables do not wait for each other', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    one.wants({ set: { b: 1 } })
    two.wants({ set: { c: 1 } })
    await one.claim.prepare()
    await two.claim.prepare()
    await one.finish()
    await two.finish()
    assert.deepEqual([await bench.read('b'), await bench.read('c')], [1, 1])
  })

  sentence('that validate the same variable do not wait for each other', async bench => {
    await bench.write({ set: { a: 1, b: 1, c: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    await one.wants({ set: { b: 2 }, current: ['a'] }).claim.prepare()
    await two.wants({ set: { c: 2 }, current: ['a'] }).claim.prepare()
    await one.finish()
    await two.finish()
  })
}

function inTurn(sentence: Sentence): void {
  for (const [text, first, second] of [
    ['different variables', { a: 2 }, { b: 2 }],
    ['new variables', { c: 2 }, { d: 2 }],
  ] as const) {
    sentence(`to ${text} wait for each other, and both are kept`, async bench => {
      await bench.write({ set: { a: 1, b: 1 } })
      const [one, two] = [await bench.writer(), await bench.writer()]
      await one.wants({ set: first }).claim.prepare()
      const later = watched(two.wants({ set: second }).commit())
      await one.finish()
      await later.promise
      for (const [name, value] of Object.entries({ ...first, ...second }))
        assert.equal(await bench.read(name), value)
    })
  }
}

/** What is held inside of this process. */
function holds(sentence: Sentence): void {
  sentence('that wait give up their place when rolled back', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    void watched(Promise.resolve(two.wants({ set: { a: 3 } }).claim.prepare()))
    await turn()
    void two.abort()
    await one.finish()
    await bench.write({ set: { a: 4 } })
    assert.equal(await bench.read('a'), 4)
  })

  sentence('that are rolled back when their turn has just come hold nothing either', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const [one, two] = [await bench.writer(), await bench.writer()]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    void watched(Promise.resolve(two.wants({ set: { a: 3, b: 3 } }).claim.prepare()))
    await turn()
    await one.claim.commit()
    one.claim.release()
    void two.abort()
    one.open.release()
    await turn()
    const third = await bench.writer()
    const end = watched(third.wants({ set: { a: 4, b: 4 } }).commit())
    await turn()
    assert.equal(end.state, 'settled')
    assert.deepEqual([await bench.read('a'), await bench.read('b')], [4, 4])
  })

  sentence('wait while the session is paused, and a pause waits for those that are prepared', async bench => {
    await bench.write({ set: { a: 1 } })
    const [one, two, reader] = [await bench.writer(), await bench.writer(), await bench.writer()]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    const pause = watched(Promise.resolve(reader.open.pause()))
    await turn()
    assert.equal(pause.state, 'pending')
    await one.finish()
    const resume = await pause.promise
    assert.equal(reader.open.snapshot().get('a')?.value, 2)
    const later = watched(two.wants({ set: { b: 1 } }).commit())
    await turn()
    assert.equal(later.state, 'pending')
    resume()
    await later.promise
    reader.open.release()
    assert.equal(await bench.read('b'), 1)
  })

  sentence('in doubt refuse at once whoever would have to wait for them, and nobody else', async bench => {
    await bench.write({ set: { a: 1, b: 1 } })
    const [one, two, three, reader] = [
      await bench.writer(),
      await bench.writer(),
      await bench.writer(),
      await bench.writer(),
    ]
    await one.wants({ set: { a: 2 } }).claim.prepare()
    const waiting = watched(two.wants({ set: { a: 3 } }).commit())
    await turn()
    one.claim.doubt()
    await assert.rejects(waiting.promise, { code: 'STORE_UNAVAILABLE' })
    await assert.rejects(three.wants({ set: { a: 4 } }).commit(), { code: 'STORE_UNAVAILABLE' })
    await assert.rejects(async () => reader.open.pause(), { code: 'STORE_UNAVAILABLE' })
    assert.equal(reader.open.snapshot().get('a')?.value, 1)
    assert.equal(reader.open.disturbance(reader.base).has('a'), true)
    assert.equal(reader.open.disturbance(reader.base).has('b'), false)
    reader.open.release()
    await (await bench.writer()).wants({ set: { b: 2 } }).commit()
    assert.deepEqual([await bench.read('a'), await bench.read('b')], [1, 2])
    await one.finish()
    assert.equal(await bench.read('a'), 2)
    await bench.write({ set: { a: 5 } })
  })

  sentence('in doubt that are rolled back leave nothing and hold nothing', async bench => {
    await bench.write({ set: { a: 1 } })
    const one = await bench.writer()
    await one.wants({ set: { a: 2 } }).claim.prepare()
    one.claim.doubt()
    await one.abort()
    assert.equal(await bench.read('a'), 1)
    await bench.write({ set: { a: 3 } })
    assert.equal(await bench.read('a'), 3)
  })
}
