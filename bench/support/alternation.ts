/**
 * Measures several servers in turn, round after round, so that whatever disturbs the machine disturbs all of them alike.
 * Knows nothing of what they serve or how it is printed.
 */
import { performance } from 'node:perf_hooks'
import { Clients } from './clients.js'
import { SideProcess } from './side-process.js'
import type { SideName } from './sides.js'

export interface Sample {
  readonly requestsPerSecond: number
  /** Processor time of the server per request, in microseconds. */
  readonly cpuMicros: number
}

export interface Plan {
  readonly sides: readonly SideName[]
  readonly databaseUrl?: string
  readonly clients: number
  readonly path: (client: number) => string
  readonly rounds: number
  readonly turnMs: number
}

export interface Measured {
  /** One per round, in order. */
  readonly samples: ReadonlyMap<SideName, readonly Sample[]>
  /** All requests that were answered with 200, warm-up included. */
  readonly answered: ReadonlyMap<SideName, number>
}

export async function alternate(plan: Plan): Promise<Measured> {
  const { sides, clients: count, path, rounds, turnMs } = plan
  const open: { side: SideName; server: SideProcess; clients: Clients; samples: Sample[] }[] = []
  try {
    for (const side of sides) {
      const server = await SideProcess.start('server.js', [side, plan.databaseUrl ?? ''])
      open.push({ side, server, clients: await Clients.open(server.port, count, path), samples: [] })
    }
    for (const { clients } of open) await warmUp(clients)
    for (let round = 0; round < rounds; round++) {
      // Forth and back: nobody is always the one after the same other.
      const turns = round % 2 === 0 ? open : open.toReversed()
      for (const { server, clients, samples } of turns) samples.push(await sample(server, clients, turnMs))
    }
    return {
      samples: new Map(open.map(({ side, samples }) => [side, samples])),
      answered: new Map(open.map(({ side, clients }) => [side, clients.answered])),
    }
  } finally {
    for (const { clients } of open) clients.close()
    await Promise.all(open.map(({ server }) => server.stop()))
  }
}

/** What the compiler costs is over after so many requests; servers run for longer than benchmarks. */
const WARM_UP_REQUESTS = 10_000
const WARM_UP_MS_MAX = 15_000

async function warmUp(clients: Clients): Promise<void> {
  await clients.greet()
  const endMs = performance.now() + WARM_UP_MS_MAX
  while (clients.answered < WARM_UP_REQUESTS && performance.now() < endMs) await clients.run(250)
}

async function sample(server: SideProcess, clients: Clients, turnMs: number): Promise<Sample> {
  const before = await server.cpuMicros()
  const { answered, seconds } = await clients.run(turnMs)
  const cpuMicros = (await server.cpuMicros()) - before
  return { requestsPerSecond: answered / seconds, cpuMicros: cpuMicros / answered }
}
