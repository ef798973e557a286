/**
 * A decision that others hear of before it is made, so that they can finish what its owner leaves behind: the intents of a
 * session store name one. Types only; knows neither who decides nor who asks.
 */

/** Names a decision: a row, the step of it that decides, and for whom. */
export interface DecisionRef {
  readonly slot: string
  readonly seq: number
  /** Of one attempt, never of two. */
  readonly txid: string
  /** The server's thread that may have the row locked, and the server. */
  readonly threadId: number | null
  readonly serverIdentity: string
}

export interface AnnouncedDecision extends DecisionRef {
  /** Nobody will ask any more: nothing that names it is left. Until then the row goes on saying what became of it. */
  forget(): void
}

/** Knows what became of announced decisions, of whatever process. */
export interface DecisionRecord {
  /** @throws STORE_UNAVAILABLE */
  lookUp(decision: DecisionRef): Promise<'committed' | 'rolledBack' | 'open'>
  /**
   * By force where it is open: after `rolledBack` it never commits. Takes as long as the database is away.
   * @param ageMs how long ago it was announced
   */
  settle(decision: DecisionRef, ageMs: number): Promise<'committed' | 'rolledBack'>
  /** All that was announced has been looked at: rows of processes that are gone need not be kept any longer. */
  swept(): void
}
