/**
 * Schedules through session-tx: some items are session variables, the others rows. The first attempt of each
 * transaction takes the schedule's steps; one that lost runs again, alone, when the schedule is over.
 */
import type { SessionTx, Tx } from '../../lib/index.js'
import type { SessionObject } from '../../lib/session/session-object.js'
import { deferred, Gate } from '../support/barrier.js'
import type { TestDatabase } from '../support/database.js'
import { type Outcome, type Party, play } from './player.js'
import { reset, rowsLeft } from './raw.js'
import { type Operation, type Schedule, type Seen, START, type Who } from './schedules.js'

/** The rows of one schedule and which items are variables instead. */
export type Placement = (item: string) => 'variable' | 'row'

const ABORTED = new Error('the schedule says abort')

interface Step {
  readonly operation: Operation
  readonly answered: (goesOn: boolean) => void
}

class JointParty implements Party {
  readonly #operations: readonly Operation[]
  readonly #placement: Placement
  readonly #rerun: Gate
  readonly #steps: Step[] = []
  #arrived = deferred()
  /** The first attempt is over and settled, however it ended. */
  readonly ended = deferred()
  seen: Seen[] = []
  id = ''

  constructor(operations: readonly Operation[], placement: Placement, rerun: Gate) {
    this.#operations = operations
    this.#placement = placement
    this.#rerun = rerun
  }

  async perform(operation: Operation): Promise<boolean> {
    const answer = deferred<boolean>()
    this.#steps.push({ operation, answered: answer.resolve })
    this.#arrived.resolve()
    if (await answer.promise) return true
    await this.ended.promise
    return false
  }

  /** What `tx.run` runs. */
  readonly work = async (tx: Tx, session: SessionObject): Promise<void> => {
    this.id = tx.id
    this.seen = []
    if (tx.attempt > 1) {
      await this.#rerun.passed()
      for (const operation of this.#operations) await this.#apply(operation, tx, session)
      return
    }
    for (;;) {
      const { operation, answered } = await this.#next()
      const isLast = operation.does === 'commit' || operation.does === 'abort'
      try {
        await this.#apply(operation, tx, session)
      } catch (error) {
        answered(false)
        throw error
      }
      answered(!isLast)
      if (isLast) return
    }
  }

  async #next(): Promise<Step> {
    for (;;) {
      const step = this.#steps.shift()
      if (step !== undefined) return step
      await this.#arrived.promise
      this.#arrived = deferred()
    }
  }

  /** The session's part of a search comes first, then the rows'. */
  async #apply(operation: Operation, tx: Tx, session: SessionObject): Promise<void> {
    const variables = session as unknown as Record<string, number>
    const inSession = 'item' in operation && this.#placement(operation.item) === 'variable'
    const look = async (sql: string): Promise<Seen> => {
      const [rows] = await tx.query<{ name: string; n: number }[]>(`SELECT name, n FROM item WHERE ${sql}`)
      return Object.fromEntries(rows.map(({ name, n }) => [name, n]))
    }
    switch (operation.does) {
      case 'read': {
        const { item } = operation
        const n = variables[item]
        this.seen.push(inSession ? (n === undefined ? {} : { [item]: n }) : await look(`name = '${item}'`))
        return
      }
      case 'find': {
        const { holds, sql } = operation.where
        const found = Object.entries(variables).filter(([, n]) => holds(n))
        this.seen.push({ ...Object.fromEntries(found), ...(await look(sql)) })
        return
      }
      case 'write': {
        const n = operation.to(this.seen)
        if (inSession) variables[operation.item] = n
        else await tx.query('UPDATE item SET n = ? WHERE name = ?', [n, operation.item])
        return
      }
      case 'insert':
        if (inSession) variables[operation.item] = operation.n
        else await tx.query('INSERT INTO item VALUES (?, ?)', [operation.item, operation.n])
        return
      case 'add to all':
        for (const name of Object.keys(variables)) variables[name] = Number(variables[name]) + operation.n
        await tx.query('UPDATE item SET n = n + ?', [operation.n])
        return
      case 'delete':
        for (const [name, n] of Object.entries(variables))
          if (operation.where.holds(n)) delete variables[name]
        await tx.query(`DELETE FROM item WHERE ${operation.where.sql}`)
        return
      case 'abort':
        throw ABORTED
      case 'commit':
    }
  }
}

export async function playJoint(
  db: TestDatabase,
  tx: SessionTx,
  schedule: Schedule,
  placement: Placement,
): Promise<Outcome> {
  const placed = (where: 'variable' | 'row'): Seen =>
    Object.fromEntries(Object.entries(START).filter(([item]) => placement(item) === where))
  await reset(db, placed('row'))
  const sessionId = await tx.run((_, session) => {
    Object.assign(session, placed('variable'))
    return session.id
  })

  const rerun = new Gate()
  const losses = new Set<string>()
  const parties = new Map<Who, JointParty>()
  for (const who of new Set(schedule.steps.map(([one]) => one))) {
    const operations = schedule.steps.filter(([one]) => one === who).map(([, operation]) => operation)
    parties.set(who, new JointParty(operations, placement, rerun))
  }
  const over = ({ id }: { readonly id: string }): void => {
    for (const party of parties.values()) if (party.id === id) party.ended.resolve()
  }
  const unsubscribe = [
    tx.on('commit', over),
    tx.on('rollback', over),
    tx.on('refused', over),
    tx.on('conflict', facts => {
      if (facts.attempt === 1) losses.add(`\`${facts.conflict.kind}\``)
      over(facts)
    }),
  ]
  const runs = [...parties].map(async ([who, party]) => {
    try {
      await tx.run(party.work, { sessionId })
      return who
    } catch (error) {
      if (error === ABORTED) return undefined
      throw error
    }
  })
  const { waited } = await play(db, schedule, who => parties.get(who) as JointParty)
  rerun.open()
  const committed = await Promise.all(runs)
  for (const stop of unsubscribe) stop()

  const variables = await tx.run((_, session) => ({ ...session }) as unknown as Seen, { sessionId })
  const seen: Partial<Record<Who, readonly Seen[]>> = {}
  for (const [who, party] of parties) if (committed.includes(who)) seen[who] = party.seen
  const history = { seen, left: { ...variables, ...(await rowsLeft(db)) } }
  return { anomaly: schedule.anomaly(history), losses: [...losses], waited, history }
}
