/** Says, once per route, that what a route set for its transaction comes too late. Knows no framework. */
import type { RouteOptions } from './http-setup.js'

/** @param callback what the options' callbacks get, as the sentence names it */
export function warnOfLateOptions(options: RouteOptions, callback: string): () => void {
  const given = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [name]))
  let warned = given.length === 0
  return () => {
    if (warned) return
    warned = true
    process.emitWarning(
      `the options of tx.transactional() (${given.join(', ')}) have no effect below app.use(tx), where the transaction ` +
        `has begun already: set them there, as functions of ${callback}, or leave this route out by its \`skip\``,
      'SessionTxWarning',
    )
  }
}
