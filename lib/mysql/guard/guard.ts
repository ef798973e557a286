/**
 * The guard before the damage: of each statement of an attempt, whether it may be sent. Refuses what would end the
 * transaction or commit it half way, and what would write a table that cannot be rolled back. Judges texts; what a
 * procedure, a trigger or a view hides is for escapes.ts to notice afterwards.
 *
 * A refused order to the transaction fails the attempt even if the handler catches the error: whoever sends COMMIT
 * expects what came before to be stored and what comes after to be another transaction, and neither would be so. A
 * refused write to a table harms nothing, since it was not sent: a handler may catch that and go on.
 */
import { SessionTxError } from '../../errors.js'
import type { CoreConnection } from '../driver.js'
import type { Engines } from './engines.js'
import type { StatementFacts, StatementPart } from '../statement/facts.js'
import type { TableName } from '../statement/token-cursor.js'

interface GuardSetup {
  readonly engines: Engines
  readonly policy: 'refuse' | 'warn'
  /** The connection's current schema; '' if it has none. */
  readonly schema: string
  readonly transactionId: () => string
  /** From here on the attempt can only be rolled back. */
  fail(error: SessionTxError): void
  /** With the policy `warn`: this table is about to be written. */
  writes(table: string): void
}

/** A table that the statement writes, and of which too little is known. */
interface Question {
  readonly schema: string
  readonly table: string
}

export class Guard {
  readonly #setup: GuardSetup
  #schema: string
  /** Temporary tables of this attempt: its connection is not used again, so what is in them is gone with it. */
  readonly #temporary = new Set<string>()
  #wroteTemporary = false
  #madeTemporary = false

  constructor(setup: GuardSetup) {
    this.#setup = setup
    this.#schema = setup.schema
  }

  /**
   * The server warns of a temporary table without transactions (MEMORY, say) as of any other; it is meant, and harms
   * nobody.
   */
  get wroteTemporary(): boolean {
    return this.#wroteTemporary
  }

  /** Of that, too, the server warns, whatever the table's engine, but only in ROLLBACK TO SAVEPOINT. */
  get madeTemporary(): boolean {
    return this.#madeTemporary
  }

  /**
   * @returns undefined: send it; else when that is known, after a look at the server
   * @throws TRANSACTION_CONTROL IMPLICIT_COMMIT NOT_TRANSACTIONAL; the promise, NOT_TRANSACTIONAL
   */
  check(facts: StatementFacts, connection: CoreConnection): Promise<void> | undefined {
    const questions: Question[] = []
    let schema = this.#schema
    for (const part of facts.parts) {
      if (part.effect === 'controls' || part.effect === 'commits') throw this.#refused(part)
      schema = part.uses ?? schema
      for (const name of part.writes) this.#judge(name, schema, questions)
    }
    return questions.length === 0 ? undefined : this.#ask(questions, connection)
  }

  /** The statement was answered, and well. */
  answered(facts: StatementFacts): void {
    for (const { uses, makesTemporary, dropsTemporary } of facts.parts) {
      if (uses !== undefined) this.#schema = uses
      if (makesTemporary !== undefined) {
        this.#temporary.add(this.#keyOf(makesTemporary, this.#schema))
        this.#madeTemporary = true
      }
      for (const dropped of dropsTemporary) this.#temporary.delete(this.#keyOf(dropped, this.#schema))
    }
  }

  #judge(name: TableName, current: string, questions: Question[]): void {
    if (this.#temporary.size > 0 && this.#temporary.has(this.#keyOf(name, current))) {
      this.#wroteTemporary = true
      return
    }
    const schema = name.schema ?? current
    // Refused only after a look: the table may have been given another engine since, perhaps on our advice.
    if (this.#setup.engines.nonTransactional(schema, name.name) !== undefined)
      questions.push({ schema, table: name.name })
  }

  async #ask(questions: readonly Question[], connection: CoreConnection): Promise<void> {
    const { engines, policy, writes, transactionId } = this.#setup
    for (const { schema, table } of questions) {
      await engines.lookUp(connection, schema, table)
      const engine = engines.nonTransactional(schema, table)
      if (typeof engine !== 'string') continue
      if (policy === 'warn') {
        writes(table)
        continue
      }
      const message =
        `table '${schema}.${table}' was not written: its engine is ${engine}, which cannot roll back, so the write would ` +
        'stay if this request fails and happen again if it runs again. ALTER TABLE … ENGINE=InnoDB in a migration, or ' +
        "write it after the commit: ctx.tx.afterCommit(() => pool.query(…)). (nonTransactionalTables: 'warn' lets it pass.)"
      throw new SessionTxError('NOT_TRANSACTIONAL', message, { transactionId: transactionId() })
    }
  }

  #refused({ verb, effect }: StatementPart): SessionTxError {
    const details = { transactionId: this.#setup.transactionId() }
    const already = 'the request already runs in one transaction, which session-tx ends'
    const halfWay = 'it would commit this request half way. Run it outside of requests, in a migration, say'
    const error =
      effect === 'controls'
        ? new SessionTxError(
            'TRANSACTION_CONTROL',
            `${verb} was not sent: ${already}. ${remedy(verb)}`,
            details,
          )
        : new SessionTxError(
            'IMPLICIT_COMMIT',
            `${verb} was not sent: ${halfWay}. ${instead(verb)}`.trim(),
            details,
          )
    this.#setup.fail(error)
    return error
  }

  #keyOf({ schema, name }: TableName, current: string): string {
    return `${schema ?? current}\0${name}`.toLowerCase()
  }
}

const REMEDIES: readonly (readonly [verbs: RegExp, remedy: string])[] = Object.freeze([
  [/SAVEPOINT|^ROLLBACK TO|^RELEASE/, 'For a part that can be undone use ctx.tx.savepoint(fn).'],
  [/^ROLLBACK/, 'To store nothing, throw an error, or call ctx.tx.doom() to answer all the same.'],
  [/^COMMIT/, 'It commits when the handler returns.'],
  [
    /^SET TRANSACTION/,
    'The level is chosen by the option `isolation`, for one route by tx.transactional(handler, { isolation }).',
  ],
  [
    /^XA/,
    'It cannot take part in a distributed transaction; enlist the other side with ctx.tx.enlist(resource).',
  ],
  [/^/, 'Leave it out; for a part that can be undone use ctx.tx.savepoint(fn).'],
])

const INSTEAD: readonly (readonly [verbs: RegExp, instead: string])[] = Object.freeze([
  [/^TRUNCATE/, 'To empty a table inside a transaction use DELETE.'],
  [/^LOCK/, 'To keep others from rows read them with SELECT … FOR UPDATE.'],
  [/^CREATE TABLE|^DROP TABLE|^CREATE TEMPORARY/, 'CREATE and DROP TEMPORARY TABLE do not commit.'],
  [/^SET autocommit/, 'The setting is ours while a request runs.'],
  [/^/, ''],
])

function instead(verb: string): string {
  return INSTEAD.find(([verbs]) => verbs.test(verb))?.[1] ?? ''
}

function remedy(verb: string): string {
  return REMEDIES.find(([verbs]) => verbs.test(verb))?.[1] ?? ''
}
