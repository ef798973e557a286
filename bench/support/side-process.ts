/**
 * A process of a benchmark, as its parent sees it: started, asked for its processor time or its heap, ended. Knows
 * nothing of what it serves.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'

/** What such a process says. */
export interface FromSide {
  readonly port?: number
  readonly cpuMicros?: number
  readonly heapBytes?: number
}

/** What it can be asked. */
export type ToSide = 'how much processor time?' | 'how large a heap?'

export class SideProcess {
  readonly port: number
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, port: number) {
    this.#child = child
    this.port = port
  }

  /** `file` is beside this one; flags of this process (such as --cpu-prof) are passed on, and these added. */
  static async start(
    file: string,
    args: readonly string[],
    flags: readonly string[] = [],
  ): Promise<SideProcess> {
    const child = fork(new URL(file, import.meta.url), args, { execArgv: [...process.execArgv, ...flags] })
    const { port } = await heard(child)
    if (port === undefined) throw new Error(`${file} ${args[0]} did not say its port`)
    return new SideProcess(child, port)
  }

  /** Processor time used since it started, of all its threads. */
  async cpuMicros(): Promise<number> {
    return (await this.#ask('how much processor time?')).cpuMicros ?? Number.NaN
  }

  /** What is in use of the heap, garbage included. */
  async heapBytes(): Promise<number> {
    return (await this.#ask('how large a heap?')).heapBytes ?? Number.NaN
  }

  async #ask(question: ToSide): Promise<FromSide> {
    const answer = heard(this.#child)
    this.#child.send(question)
    return answer
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.disconnect()
    await ended
  }
}

async function heard(child: ChildProcess): Promise<FromSide> {
  const stop = new AbortController()
  const { signal } = stop
  const died = once(child, 'exit', { signal }).then(() => {
    throw new Error('a process of the benchmark ended early')
  })
  died.catch(() => {})
  try {
    const [message] = (await Promise.race([once(child, 'message', { signal }), died])) as [FromSide]
    return message
  } finally {
    stop.abort()
  }
}
