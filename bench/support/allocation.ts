/**
 * What a request makes a server allocate in JavaScript's heap: how much the heap grows over a few requests, while nothing
 * is collected. Taken often, and the median, which is none of the few times when something was. In processes apart from
 * those whose time is measured: their space for young objects is as no server has it. Buffers outside of the heap are not
 * counted. Knows nothing of what is served.
 */
import { Clients } from './clients.js'
import { median } from './report.js'
import { SideProcess } from './side-process.js'
import type { SideName } from './sides.js'

export interface AllocationPlan {
  readonly sides: readonly SideName[]
  readonly clients: number
  readonly path: (client: number) => string
}

/** So large that one window of twenty is disturbed. Nothing is collected by force: that throws compiled code away, too. */
const FLAGS = ['--min-semi-space-size=64', '--max-semi-space-size=64']
/** Only what has run often is compiled so well that some of its objects are never made. */
const WARM_UP_REQUESTS = 10_000
const WINDOWS = 40
const WINDOW_REQUESTS = 80
const ROUNDS = 3

/** Bytes per request, medians. */
export async function allocatedBytes({
  sides,
  clients,
  path,
}: AllocationPlan): Promise<ReadonlyMap<SideName, number>> {
  const samples = new Map<SideName, number[]>(sides.map(side => [side, []]))
  for (let round = 0; round < ROUNDS; round++)
    for (const side of sides) samples.get(side)?.push(await sampleOf(side, clients, path))
  return new Map([...samples].map(([side, counted]) => [side, median(counted)]))
}

async function sampleOf(side: SideName, count: number, path: (client: number) => string): Promise<number> {
  const server = await SideProcess.start('server.js', [side], FLAGS)
  try {
    const clients = await Clients.open(server.port, count, path)
    try {
      await clients.each(Math.ceil(WARM_UP_REQUESTS / count))
      const each = Math.ceil(WINDOW_REQUESTS / count)
      const windows: number[] = []
      for (let window = 0; window < WINDOWS; window++) {
        const before = await server.heapBytes()
        await clients.each(each)
        windows.push(((await server.heapBytes()) - before) / (each * count))
      }
      return median(windows)
    } finally {
      clients.close()
    }
  } finally {
    await server.stop()
  }
}
