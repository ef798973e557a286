/**
 * The Node environment of every test file, plus one rule: a file that leaves a socket, a server, a timer or a
 * child process behind fails, and the failure says what was left. Jest alone only hangs at the very end, or
 * kills its worker, and names nobody.
 */

import type { Circus } from '@jest/types'
import { TestEnvironment } from 'jest-environment-node'

const watched = new Set(['TCPSocketWrap', 'TCPServerWrap', 'PipeServerWrap', 'Timeout', 'ProcessWrap'])

/** Sockets that were ended close a little later; what is still there after this time was forgotten. */
const settleMsMax = 2_000

export default class LeakEnvironment extends TestEnvironment {
  #before = new Map<string, number>()

  override async setup(): Promise<void> {
    await super.setup()
    this.#before = count()
  }

  async handleTestEvent(event: Circus.AsyncEvent | Circus.SyncEvent, state: Circus.State): Promise<void> {
    if (event.name !== 'run_finish') return
    const deadline = Date.now() + settleMsMax
    let left = this.#left()
    while (left.length > 0 && Date.now() < deadline) {
      await new Promise(resolve => setTimeout(resolve, 20))
      left = this.#left()
    }
    if (left.length > 0) state.unhandledErrors.push(new Error(`this file left open: ${left.join(', ')}`))
  }

  #left(): string[] {
    return [...count()]
      .map(([type, now]) => [type, now - (this.#before.get(type) ?? 0)] as const)
      .filter(([, more]) => more > 0)
      .map(([type, more]) => `${more} ${type}`)
  }
}

/** What keeps this process alive, by type. Unreferenced timers and sockets are not in it. */
function count(): Map<string, number> {
  const counts = new Map<string, number>()
  for (const type of process.getActiveResourcesInfo()) {
    if (watched.has(type)) counts.set(type, (counts.get(type) ?? 0) + 1)
  }
  return counts
}
