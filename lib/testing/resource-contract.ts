/**
 * The contract of transaction/resource.ts as a suite of sentences, for participants that applications write themselves.
 * It calls a resource exactly as a transaction does. Knows nothing of what a resource keeps.
 */
import assert from 'node:assert/strict'
import { PATIENCE } from '../transaction/two-phase-commit.js'
import type { MaybePromise, Resource } from '../transaction/resource.js'
import { runner } from './runner.js'

/** One attempt's resource, and hands to work it with. */
export interface ResourceUnderTest {
  readonly resource: Resource
  /** Does a piece of work of that name, as a handler would between the start and the end of an attempt. */
  work(piece: string): MaybePromise<void>
  /** Names of the work that everybody else can see by now. */
  visible(): MaybePromise<readonly string[]>
  /** Lets another transaction win, so that this attempt can no longer commit. Left out: that cannot happen. */
  lose?(): MaybePromise<void>
  /** Called after each sentence. */
  close?(): MaybePromise<void>
}

/** Makes a resource for a new attempt; nothing is visible yet. */
export type ResourceFactory = () => MaybePromise<ResourceUnderTest>

/**
 * Registers the contract's sentences with the test runner.
 *
 * @param factory called once per sentence
 * @throws TypeError where no test runner is running
 *
 * @example
 * import { resourceContract } from 'session-tx/testing'
 * resourceContract('outbox', () => {
 *   const outbox = new Outbox(folder())
 *   return { resource: outbox, work: name => outbox.put(name, 'text'), visible: () => outbox.list() }
 * })
 * // … and then in the application: app.use(ctx => ctx.tx.enlist(outbox))
 */
export function resourceContract(name: string, factory: ResourceFactory): void {
  const { describe, it } = runner('resourceContract')

  const sentence: Sentence = (text, body) => {
    it(text, async () => {
      const subject = await factory()
      try {
        await body(handsOf(subject))
      } finally {
        await subject.close?.()
      }
    })
  }

  describe(`${name} keeps the contract of a resource`, () => {
    sentence('has a name and a number of phases, and the methods that go with them', async ({ resource }) => {
      assert.equal(typeof resource.name, 'string')
      assert.ok(resource.phases === 1 || resource.phases === 2)
      assert.equal(typeof resource.commit, 'function')
      assert.equal(typeof resource.rollback, 'function')
      if (resource.phases === 2) assert.equal(typeof resource.prepare, 'function')
    })
    describe('committing', () => committing(sentence))
    describe('in doubt', () => inDoubt(sentence))
    describe('rolling back', () => rollingBack(sentence))
    describe('losing', () => losing(sentence))
    describe('savepoints', () => savepoints(sentence))
  })
}

/** What a sentence gets: functions of their own, whatever `this` the subject's methods need. */
interface Hands {
  readonly resource: Resource
  readonly work: (piece: string) => MaybePromise<void>
  readonly visible: () => Promise<string[]>
  readonly lose: (() => MaybePromise<void>) | undefined
}

type Sentence = (text: string, body: (hands: Hands) => Promise<void>) => void

function committing(sentence: Sentence): void {
  sentence('shows nothing before it, and everything after it', async ({ resource, work, visible }) => {
    await work('a')
    await work('b')
    await resource.settle?.()
    assert.deepEqual(await visible(), [])
    if (resource.phases === 2) await resource.prepare()
    assert.deepEqual(await visible(), [])
    await resource.commit()
    if (resource.phases === 2) resource.release?.()
    assert.deepEqual(await visible(), ['a', 'b'])
  })

  sentence('works where no work was done', async ({ resource, visible }) => {
    await commit(resource)
    assert.deepEqual(await visible(), [])
  })
}

function inDoubt(sentence: Sentence): void {
  sentence(
    'shows nothing while it lasts; committing then shows everything',
    async ({ resource, work, visible }) => {
      if (resource.phases !== 2 || resource.doubt === undefined) return
      await work('a')
      await resource.settle?.()
      await resource.prepare()
      resource.doubt()
      assert.deepEqual(await visible(), [])
      await resource.commit()
      resource.release?.()
      assert.deepEqual(await visible(), ['a'])
    },
  )

  sentence('can be rolled back, and leaves nothing', async ({ resource, work, visible }) => {
    if (resource.phases !== 2 || resource.doubt === undefined) return
    await work('a')
    await resource.settle?.()
    await resource.prepare()
    resource.doubt()
    await bounded(resource)
    assert.deepEqual(await visible(), [])
  })
}

function rollingBack(sentence: Sentence): void {
  sentence('leaves nothing, whatever was done', async ({ resource, work, visible }) => {
    await work('a')
    await bounded(resource)
    assert.deepEqual(await visible(), [])
  })

  sentence('works where no work was done', async ({ resource, visible }) => {
    await bounded(resource)
    assert.deepEqual(await visible(), [])
  })

  sentence('leaves nothing after prepare', async ({ resource, work, visible }) => {
    await work('a')
    if (resource.phases === 2) await resource.prepare()
    await bounded(resource)
    assert.deepEqual(await visible(), [])
  })

  sentence('copes with work that is still under way', async ({ resource, work, visible }) => {
    const unfinished = Promise.resolve(work('a')).catch(() => {})
    await bounded(resource)
    await unfinished
    assert.deepEqual(await visible(), [])
  })
}

function losing(sentence: Sentence): void {
  sentence(
    'makes prepare or commit throw, and the rollback after it leaves nothing',
    async ({ resource, work, visible, lose }) => {
      if (lose === undefined) return
      await work('a')
      await lose()
      const before = await visible()
      await assert.rejects(async () => commit(resource))
      await bounded(resource)
      assert.deepEqual(await visible(), before)
    },
  )
}

function savepoints(sentence: Sentence): void {
  sentence('take back what came later and keep what came earlier', async ({ resource, work, visible }) => {
    if (resource.savepoint === undefined) return
    await work('a')
    const goBack = await resource.savepoint()
    await work('b')
    await goBack()
    await work('c')
    await commit(resource)
    assert.deepEqual(await visible(), ['a', 'c'])
  })

  sentence('that are not gone back to change nothing', async ({ resource, work, visible }) => {
    if (resource.savepoint === undefined) return
    await work('a')
    await resource.savepoint()
    await work('b')
    await commit(resource)
    assert.deepEqual(await visible(), ['a', 'b'])
  })

  sentence('nest', async ({ resource, work, visible }) => {
    if (resource.savepoint === undefined) return
    const outer = await resource.savepoint()
    await work('a')
    const inner = await resource.savepoint()
    await work('b')
    await inner()
    await work('c')
    await outer()
    await work('d')
    await commit(resource)
    assert.deepEqual(await visible(), ['d'])
  })
}

function handsOf(subject: ResourceUnderTest): Hands {
  return {
    resource: subject.resource,
    work: piece => subject.work(piece),
    // In one order, and as an array of our own: those of Node and of a test runner's realm count as different.
    visible: async () => [...(await subject.visible())].sort(),
    lose: subject.lose === undefined ? undefined : () => subject.lose?.(),
  }
}

/** As two-phase-commit.ts does it. */
async function commit(resource: Resource): Promise<void> {
  await resource.settle?.()
  if (resource.phases === 2) await resource.prepare()
  await resource.commit()
  if (resource.phases === 2) resource.release?.()
}

/** A rollback that hangs is a defect of its own. */
async function bounded(resource: Resource): Promise<void> {
  let stop = (): void => {}
  const late = new Promise<never>((_resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`rollback of '${resource.name}' took longer than ${PATIENCE.rollbackMsMax} ms`))
    }, PATIENCE.rollbackMsMax)
    stop = () => clearTimeout(timer)
  })
  try {
    await Promise.race([resource.rollback(), late])
  } finally {
    stop()
  }
}
