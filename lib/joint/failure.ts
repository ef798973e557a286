/** What a handler threw, in a box of its own, since anything can be thrown, undefined too. */
export interface Failure {
  readonly error: unknown
}

export function boxed(error: unknown): Failure | undefined {
  return error === undefined ? undefined : { error }
}
