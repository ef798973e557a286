/**
 * The contract of session/store.ts as a suite of sentences, run by our own stores and published for others. It drives a
 * store as transactions do, through its public methods only, with time that it moves itself. Knows no back-end.
 */
import type { StoreSettings } from '../session/store.js'
import { claims, concurrency } from './claim-sentences.js'
import { runner } from './runner.js'
import { type Bench, benchOf, type StoreCapabilities, type StoreFactory } from './store-bench.js'
import { users } from './user-sentences.js'
import { disturbances, existence, snapshots, time } from './store-sentences.js'

/**
 * Registers the contract's sentences with the test runner.
 *
 * @param factory called once per sentence
 * @throws TypeError where no test runner is running
 *
 * @example
 * import { storeContract } from 'session-tx/testing'
 * storeContract('memoryStore', () => memoryStore(), {
 *   local: true,
 *   injectedClock: true,
 *   countsCommits: true,
 *   parallelClaims: true,
 *   findsUsers: true,
 * })
 * // The store under test is then what sessionTx takes: app.use(sessionTx({ store: memoryStore() }))
 */
export function storeContract(name: string, factory: StoreFactory, capabilities: StoreCapabilities): void {
  const { describe, it } = runner('storeContract')

  function sentence(
    text: string,
    body: (bench: Bench) => Promise<void>,
    settings: Partial<StoreSettings> = {},
  ): void {
    it(text, async () => {
      const bench = await benchOf(await factory(), settings)
      try {
        await body(bench)
      } finally {
        await bench.store.close()
      }
    })
  }

  describe(`${name} keeps the contract of a session store`, () => {
    describe('a session', () => existence(sentence, factory, capabilities))
    describe('a snapshot', () => snapshots(sentence))
    describe('what disturbs it', () => disturbances(sentence, capabilities))
    describe('a claim', () => claims(sentence, capabilities))
    describe('claims at the same time', () => concurrency(sentence, capabilities))
    describe('time', () => time(sentence, capabilities))
    describe('a session of a user', () => users(sentence, capabilities))
  })
}
