/** As many processes of one application as wanted, behind one port. Knows nothing of what they serve. */
import { ApplicationProcess } from './application-process.js'
import { Balancer } from './balancer.js'

/** @typeParam Figures what a process tells when it is asked */
export class ApplicationGroup<Figures> {
  readonly processes: readonly ApplicationProcess<Figures>[]
  readonly #balancer: Balancer | undefined

  private constructor(processes: readonly ApplicationProcess<Figures>[], balancer: Balancer | undefined) {
    this.processes = processes
    this.#balancer = balancer
  }

  /**
   * @param file a compiled module that calls `serveApplication`
   * @param argsOf the arguments of each process, counted from 0
   */
  static async start<Figures>(
    count: number,
    file: URL,
    argsOf: (number: number) => readonly string[],
  ): Promise<ApplicationGroup<Figures>> {
    const starting = Array.from({ length: count }, (_, number) =>
      ApplicationProcess.start<Figures>(file, argsOf(number)),
    )
    const started = await Promise.allSettled(starting)
    const processes = started.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []))
    const failed = started.find(one => one.status === 'rejected')
    if (failed !== undefined) {
      await Promise.all(processes.map(one => one.end()))
      throw failed.reason
    }
    // One process needs nobody in front of it, and is measured without.
    const balancer = count === 1 ? undefined : await Balancer.open(processes.map(({ port }) => port))
    return new ApplicationGroup(processes, balancer)
  }

  get port(): number {
    return this.#balancer?.port ?? this.processes[0]!.port
  }

  figures(): Promise<Figures[]> {
    return Promise.all(this.processes.map(one => one.figures()))
  }

  /** At once, whoever waits for an answer. */
  async end(): Promise<void> {
    await this.#balancer?.close()
    await Promise.all(this.processes.map(one => one.end()))
  }
}
