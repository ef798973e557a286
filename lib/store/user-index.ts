/** Which sessions of a store in memory belong to whom: keys of sessions by the key of their user. Knows no session. */
export class UserIndex {
  readonly #users = new Map<string, string>()
  readonly #sessions = new Map<string, Set<string>>()

  /** @param user undefined: it belongs to nobody, or is gone */
  set(session: string, user: string | undefined): void {
    const before = this.#users.get(session)
    if (before === user) return
    if (before !== undefined) {
      const sessions = this.#sessions.get(before)
      sessions?.delete(session)
      if (sessions?.size === 0) this.#sessions.delete(before)
    }
    if (user === undefined) {
      this.#users.delete(session)
      return
    }
    this.#users.set(session, user)
    this.#sessions.set(user, (this.#sessions.get(user) ?? new Set()).add(session))
  }

  sessionsOf(user: string): readonly string[] {
    return [...(this.#sessions.get(user) ?? [])]
  }
}
