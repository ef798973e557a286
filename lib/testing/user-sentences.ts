/** The store contract about finding the sessions of a user. */
import assert from 'node:assert/strict'
import { userKey } from '../session/user-key.js'
import { Writer } from './session-writer.js'
import { type Bench, IDLE_MS, type Sentence, type StoreCapabilities } from './store-bench.js'

const settings = { userVariable: 'user' }

export function users(sentence: Sentence, { findsUsers, injectedClock }: StoreCapabilities): void {
  if (!findsUsers) {
    sentence('is not promised: sessionsOf is not there', async ({ store }) => {
      assert.equal(store.sessionsOf, undefined)
    })
    return
  }
  const sessionsOf = async ({ store }: Bench, user: unknown): Promise<readonly string[]> =>
    (await store.sessionsOf?.(userKey(user))) ?? []
  /** Nobody else's in a table that outlives a run. */
  const ann = ({ key }: Bench): unknown => ({ id: key, roles: new Set(['admin']) })

  sentence(
    'is found by who its variable names, whatever the order of keys',
    async bench => {
      await bench.write({ set: { user: ann(bench), a: 1 } })
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [bench.key])
      assert.deepEqual(await sessionsOf(bench, { roles: new Set(['admin']), id: bench.key }), [bench.key])
      assert.deepEqual(await sessionsOf(bench, { roles: ['admin'], id: bench.key }), [])
      assert.deepEqual(await sessionsOf(bench, bench.key), [])
    },
    settings,
  )

  sentence(
    'is found after a login and not after a logout, and each of several is',
    async bench => {
      await bench.write({ set: { a: 1 } })
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [])
      await bench.write({ set: { user: ann(bench) } })
      const other = `${bench.key}-other`
      await (await Writer.creating(bench, other)).wants({ set: { user: ann(bench) } }).commit()
      assert.deepEqual([...(await sessionsOf(bench, ann(bench)))].sort(), [bench.key, other])
      await bench.write({ set: { user: undefined } })
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [other])
      await bench.write({ set: { user: ann(bench), a: 2 } })
      assert.equal((await sessionsOf(bench, ann(bench))).length, 2)
    },
    settings,
  )

  sentence(
    'is found by whom a resolver has named',
    async bench => {
      await bench.write({ set: { user: 'nobody' } })
      const slow = (await bench.writer()).wants({
        set: { user: 'mine' },
        merge: { user: () => `merged ${bench.key}` },
      })
      await bench.write({ set: { user: 'theirs' } })
      await slow.commit()
      assert.deepEqual(await sessionsOf(bench, `merged ${bench.key}`), [bench.key])
    },
    settings,
  )

  sentence(
    'is not found by a login that was rolled back, nor after its end',
    async bench => {
      await bench.write({ set: { a: 1 } })
      const writer = (await bench.writer()).wants({ set: { user: ann(bench) } })
      await writer.claim.prepare()
      await writer.abort()
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [])
      await bench.write({ set: { user: ann(bench) } })
      await bench.write({ destroys: true })
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [])
    },
    settings,
  )

  if (!injectedClock) return
  sentence(
    'is forgotten with a session that has expired',
    async bench => {
      await bench.write({ set: { user: ann(bench) } })
      bench.clock.advance(10 * IDLE_MS)
      assert.equal(await bench.store.open(bench.key), undefined)
      assert.deepEqual(await sessionsOf(bench, ann(bench)), [])
    },
    settings,
  )
}
