/**
 * Measures several servers in turn, round after round, so that whatever disturbs the machine disturbs all of them alike.
 * Knows nothing of what they serve or how it is printed.
 */
import { performance } from 'node:perf_hooks'
import { Clients } from './clients.js'
import { percentile } from './report.js'
import { SideProcess } from './side-process.js'
import type { SideName } from './sides.js'

export interface Sample {
  readonly requestsPerSecond: number
  /** Processor time of the server per request, in microseconds. */
  readonly cpuMicros: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
  /** What the plan counts, per request. */
  readonly counted: readonly number[]
}

export interface Plan {
  readonly sides: readonly SideName[]
  readonly databaseUrl?: string
  readonly clients: number
  readonly path: (client: number) => string
  readonly rounds: number
  readonly turnMs: number
  /** At most; where it is short, all sides are measured equally cold. */
  readonly warmUpMs?: number
  /** What only grows, such as bytes: how much each grows per request is part of the sample. */
  readonly count?: () => Promise<readonly number[]>
}

export interface Measured {
  /** One per round, in order. */
  readonly samples: ReadonlyMap<SideName, readonly Sample[]>
  /** All requests that were answered with 200, warm-up included. */
  readonly answered: ReadonlyMap<SideName, number>
}

/**
 * Every round starts its servers anew: one process can be twice as slow as the next one of the same program for all its
 * life, and then says more of its luck than of the program.
 */
export async function alternate(plan: Plan): Promise<Measured> {
  const samples = new Map<SideName, Sample[]>(plan.sides.map(side => [side, []]))
  const answered = new Map<SideName, number>()
  for (let round = 0; round < plan.rounds; round++) {
    // Forth and back: nobody is always the one after the same other.
    const turns = round % 2 === 0 ? plan.sides : plan.sides.toReversed()
    for (const side of turns) {
      const turn = await takeTurn(side, plan)
      samples.get(side)?.push(turn.sample)
      answered.set(side, (answered.get(side) ?? 0) + turn.answered)
    }
  }
  return { samples, answered }
}

async function takeTurn(
  side: SideName,
  plan: Plan,
): Promise<{ readonly sample: Sample; readonly answered: number }> {
  const { clients: count, path, databaseUrl = '', warmUpMs = WARM_UP_MS_MAX } = plan
  const server = await SideProcess.start('server.js', [side, databaseUrl])
  try {
    const clients = await Clients.open(server.port, count, path)
    try {
      await warmUp(clients, warmUpMs)
      return { sample: await measure(server, clients, plan), answered: clients.answered }
    } finally {
      clients.close()
    }
  } finally {
    await server.stop()
  }
}

/** What the compiler costs is over after so many requests; servers run for longer than benchmarks. */
const WARM_UP_REQUESTS = 10_000
const WARM_UP_MS_MAX = 15_000

async function warmUp(clients: Clients, durationMs: number): Promise<void> {
  await clients.greet()
  const endMs = performance.now() + durationMs
  while (clients.answered < WARM_UP_REQUESTS && performance.now() < endMs) await clients.run(250)
}

async function measure(
  server: SideProcess,
  clients: Clients,
  { turnMs, count = async () => [] }: Plan,
): Promise<Sample> {
  const countedBefore = await count()
  const before = await server.cpuMicros()
  const { answered, seconds, latenciesMs } = await clients.run(turnMs)
  const cpuMicros = (await server.cpuMicros()) - before
  const counted = await count()
  const at = percentile(latenciesMs)
  return {
    requestsPerSecond: answered / seconds,
    cpuMicros: cpuMicros / answered,
    p50Ms: at(0.5),
    p95Ms: at(0.95),
    p99Ms: at(0.99),
    counted: counted.map((now, place) => (now - (countedBefore[place] ?? 0)) / answered),
  }
}
