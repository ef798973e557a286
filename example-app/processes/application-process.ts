/**
 * A process that serves an application, as its parent sees it: started, asked for its figures, ended. Knows nothing of
 * what is served; application.ts beside this file is the other side.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'

/** @typeParam Figures what the application tells when it is asked */
export class ApplicationProcess<Figures> {
  readonly port: number
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown[]>

  private constructor(child: ChildProcess, exited: Promise<unknown[]>, port: number) {
    this.#child = child
    this.#exited = exited
    this.port = port
  }

  /** @param file a compiled module that calls `serveApplication` */
  static async start<Figures>(file: URL, args: readonly string[]): Promise<ApplicationProcess<Figures>> {
    // Under NODE_ENV=production the application would want to be told who may look at its metrics.
    const child = fork(file, args, { env: { ...process.env, NODE_ENV: 'development' } })
    const exited = once(child, 'exit')
    const { port } = await heard<{ port: number }>(child, exited)
    return new ApplicationProcess(child, exited, port)
  }

  /** Asks one thing at a time. */
  async figures(): Promise<Figures> {
    const answer = heard<Figures>(this.#child, this.#exited)
    this.#child.send('figures')
    return answer
  }

  /** SIGTERM: answers what it has been asked, and then ends. Resolves to its exit code. */
  async close(): Promise<number | null> {
    this.#child.kill('SIGTERM')
    return this.#ended()
  }

  /** SIGKILL, as if the machine had stopped. Sent before this returns. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** Lets go of it: it ends at once, whoever waits for an answer. */
  async end(): Promise<number | null> {
    if (this.#child.connected) this.#child.disconnect()
    return this.#ended()
  }

  async #ended(): Promise<number | null> {
    await this.#exited
    return this.#child.exitCode
  }
}

/** The next thing that the child says. */
async function heard<T>(child: ChildProcess, exited: Promise<unknown>): Promise<T> {
  const died = exited.then(() => Promise.reject(new Error('the application ended before its time')))
  const [message] = (await Promise.race([once(child, 'message'), died])) as [T]
  return message
}
