/** Who holds which part of a session: compatibility, first come first served, and no deadlock in any order of events. */
import fc from 'fast-check'
import { type HoldMode, HoldTable, sortParts } from '../../lib/session/hold.js'
import { NAMES, type SessionPart, WHOLE } from '../../lib/session/store.js'

const MODES: readonly HoldMode[] = ['write', 'read', 'change']

/** Lets promises that are settled be heard. */
const heard = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

describe('two holds of one part', () => {
  for (const present of MODES) {
    for (const wanted of MODES) {
      const both = present === wanted && present !== 'write'
      test(`${present} and ${wanted} ${both ? 'are held together' : 'exclude each other'}`, async () => {
        const table = new HoldTable()
        expect(table.acquire('a', present)).toBeUndefined()
        const second = table.acquire('a', wanted)
        expect(second === undefined).toBe(both)
        table.release('a')
        await second?.held
        table.release('a')
        expect(table.idle).toBe(true)
      })
    }
  }

  test('of different parts have nothing to do with each other', () => {
    const table = new HoldTable()
    const parts: readonly SessionPart[] = ['a', 'b', NAMES, WHOLE]
    for (const part of parts) expect(table.acquire(part, 'write')).toBeUndefined()
  })
})

describe('a holder in doubt', () => {
  const refused = expect.objectContaining({ code: 'STORE_UNAVAILABLE' }) as Error

  for (const present of MODES) {
    for (const wanted of MODES) {
      const both = present === wanted && present !== 'write'
      test(`of ${present}: who wants ${wanted} ${both ? 'goes on as ever' : 'is refused at once, until it releases'}`, () => {
        const table = new HoldTable()
        table.acquire('a', present)
        table.doubt('a')
        if (both) expect(table.acquire('a', wanted)).toBeUndefined()
        else expect(() => table.acquire('a', wanted)).toThrow(refused)
        table.release('a', true)
        if (both) table.release('a')
        expect(table.idle).toBe(true)
        expect(table.acquire('a', wanted)).toBeUndefined()
      })
    }
  }

  test('who waits for it already is refused, and those behind who need not wait for it go on', async () => {
    const table = new HoldTable()
    const log: string[] = []
    const note = (name: string, mode: HoldMode): void => {
      table.acquire('a', mode)?.held.then(
        () => log.push(name),
        (error: { code?: string }) => log.push(`${name} ${error.code}`),
      )
    }
    table.acquire('a', 'change')
    note('writer', 'write')
    note('other', 'change')
    note('reader', 'read')
    table.doubt('a')
    await heard()
    expect(log.sort()).toEqual(['other', 'reader STORE_UNAVAILABLE', 'writer STORE_UNAVAILABLE'])
    table.release('a', true)
    expect(table.idle).toBe(false)
    table.release('a')
    expect(table.idle).toBe(true)
  })

  test('beside others: they are waited for again once it has released', async () => {
    const table = new HoldTable()
    table.acquire('a', 'change')
    table.acquire('a', 'change')
    table.doubt('a')
    expect(() => table.acquire('a', 'write')).toThrow(refused)
    table.release('a', true)
    const waiting = table.acquire('a', 'write')
    table.release('a')
    await waiting?.held
    expect(table.idle).toBe(false)
  })

  test('is still one that is about to change the part', () => {
    const table = new HoldTable()
    table.acquire('a', 'write')
    table.doubt('a')
    expect(table.changing()).toEqual(['a'])
  })

  test.each([
    ['a', "session variable 'a' is held"],
    [NAMES, "the set of the session's variables is held"],
    [WHOLE, 'the session is held'],
  ] as const)('the refusal names the part: %p', (part, words) => {
    const table = new HoldTable()
    table.acquire(part, 'write')
    table.doubt(part)
    expect(() => table.acquire(part, 'read')).toThrow(words)
  })
})

describe('waiting', () => {
  test('is first come, first served: nobody who could go on at once overtakes who waits', async () => {
    const table = new HoldTable()
    const log: string[] = []
    table.acquire('a', 'read')
    void table.acquire('a', 'write')?.held.then(() => log.push('writer'))
    void table.acquire('a', 'read')?.held.then(() => log.push('reader'))
    await heard()
    expect(log).toEqual([])
    table.release('a')
    await heard()
    expect(log).toEqual(['writer'])
    table.release('a')
    await heard()
    expect(log).toEqual(['writer', 'reader'])
  })

  test('compatible ones that stand together are admitted together', async () => {
    const table = new HoldTable()
    const log: string[] = []
    table.acquire('a', 'write')
    for (const name of ['one', 'two']) void table.acquire('a', 'change')?.held.then(() => log.push(name))
    void table.acquire('a', 'read')?.held.then(() => log.push('reader'))
    table.release('a')
    await heard()
    expect(log).toEqual(['one', 'two'])
  })

  test('a place that is given up lets those behind it go on', async () => {
    const table = new HoldTable()
    const log: string[] = []
    table.acquire('a', 'read')
    const writer = table.acquire('a', 'write')
    void table.acquire('a', 'read')?.held.then(() => log.push('reader'))
    expect(writer?.cancel()).toBe(true)
    await heard()
    expect(log).toEqual(['reader'])
    expect(writer?.cancel()).toBe(false)
  })

  test('a place that was already granted cannot be given up any more', () => {
    const table = new HoldTable()
    table.acquire('a', 'write')
    const next = table.acquire('a', 'write')
    table.release('a')
    expect(next?.cancel()).toBe(false)
    table.release('a')
    expect(table.idle).toBe(true)
  })
})

describe('what is about to change', () => {
  test('is what is held for writing or changing; of the whole, only for writing', () => {
    const table = new HoldTable()
    table.acquire('read', 'read')
    table.acquire('written', 'write')
    table.acquire(NAMES, 'change')
    table.acquire(WHOLE, 'change')
    expect(table.changing()).toEqual(['written', NAMES])
    table.release(WHOLE)
    table.acquire(WHOLE, 'write')
    expect(table.changing()).toEqual(['written', NAMES, WHOLE])
  })
})

test('the one order: the whole, the names, then variables by name', () => {
  const expected: SessionPart[] = [WHOLE, NAMES, '', 'A', '__proto__', 'a', 'ab', 'b', 'ä']
  fc.assert(
    fc.property(fc.shuffledSubarray(expected, { minLength: expected.length }), parts => {
      expect(sortParts(parts)).toEqual(expected)
    }),
  )
})

// ── any number of parties, any order of events ─────────────────────────────────────────────────────────────────────

interface Want {
  readonly part: SessionPart
  readonly mode: HoldMode
}

interface Party {
  readonly wants: readonly Want[]
  taken: number
  /** The place it waits at, if it waits. */
  waits: { readonly want: Want; readonly cancel: () => boolean } | undefined
  done: boolean
}

const PARTS: readonly SessionPart[] = [WHOLE, NAMES, 'a', 'b', 'c']

const parties = fc.array(
  fc.uniqueArray(fc.record({ part: fc.constantFrom(...PARTS), mode: fc.constantFrom(...MODES) }), {
    selector: ({ part }) => part,
    minLength: 1,
  }),
  { minLength: 1, maxLength: 8 },
)
/** Which of those who can do something does it, and whether it gives up. */
const choices = fc.infiniteStream(fc.record({ pick: fc.nat(1_000), givesUp: fc.integer({ min: 0, max: 9 }) }))

test('nobody waits for ever, nobody overtakes, nobody holds what excludes another', async () => {
  await fc.assert(
    fc.asyncProperty(parties, choices, async (wishes, chosen) => {
      const table = new HoldTable()
      const holders = new Map<SessionPart, { party: Party; mode: HoldMode }[]>()
      const queues = new Map<SessionPart, Party[]>()
      const all = wishes.map<Party>(wants => {
        const order = sortParts(wants.map(({ part }) => part))
        const sorted = [...wants].sort((x, y) => order.indexOf(x.part) - order.indexOf(y.part))
        return { wants: sorted, taken: 0, waits: undefined, done: false }
      })

      const admitted = (party: Party, { part, mode }: Want): void => {
        const queue = queues.get(part) ?? []
        const place = queue.indexOf(party)
        // Whoever stands before it must have been admitted in the same moment, being compatible.
        expect(queue.slice(0, Math.max(place, 0)).filter(({ waits }) => waits !== undefined)).toEqual([])
        if (place >= 0) queue.splice(place, 1)
        const present = holders.get(part) ?? []
        for (const other of present) expect(other.mode === mode && mode !== 'write').toBe(true)
        holders.set(part, [...present, { party, mode }])
        party.taken += 1
      }
      const leave = (party: Party): void => {
        for (const { part } of party.wants.slice(0, party.taken)) {
          holders.set(
            part,
            (holders.get(part) ?? []).filter(other => other.party !== party),
          )
          table.release(part)
        }
        party.done = true
      }
      const step = (party: Party): void => {
        const want = party.wants[party.taken]
        if (want === undefined) {
          leave(party)
          return
        }
        const place = table.acquire(want.part, want.mode)
        if (place === undefined) {
          admitted(party, want)
          return
        }
        party.waits = { want, cancel: () => place.cancel() }
        queues.set(want.part, [...(queues.get(want.part) ?? []), party])
        void place.held.then(() => {
          party.waits = undefined
          admitted(party, want)
        })
      }

      for (const { pick, givesUp } of chosen) {
        const left = all.filter(({ done }) => !done)
        if (left.length === 0) break
        const waiting = left.filter(({ waits }) => waits !== undefined)
        const tired = waiting[pick % Math.max(waiting.length, 1)]
        if (givesUp === 0 && tired?.waits !== undefined) {
          const { want, cancel } = tired.waits
          expect(cancel()).toBe(true)
          tired.waits = undefined
          queues.set(
            want.part,
            (queues.get(want.part) ?? []).filter(party => party !== tired),
          )
          leave(tired)
        } else {
          const able = left.filter(({ waits }) => waits === undefined)
          // The deadlock that must not be.
          expect(able.length).toBeGreaterThan(0)
          const next = able[pick % able.length]
          if (next !== undefined) step(next)
        }
        await heard()
      }
      expect(table.idle).toBe(true)
    }),
    { numRuns: 60 },
  )
})
