/** The Redis of a benchmark, that REDIS_URL names, as who measures sees it. */
import { createClient } from 'redis'

export class BenchRedis {
  /** As it names itself, such as `Redis 7.0.15`. */
  readonly server: string
  readonly #client: Client

  private constructor(client: Client, server: string) {
    this.#client = client
    this.server = server
  }

  static async open(): Promise<BenchRedis> {
    const { REDIS_URL } = process.env
    if (REDIS_URL === undefined) throw new Error('REDIS_URL is not set: run npm run bench, it starts a Redis')
    const client = await connect(REDIS_URL)
    const version = /redis_version:(\S+)/.exec(await client.info('server'))?.[1]
    return new BenchRedis(client, `Redis ${version}`)
  }

  /** That the server has received, and sent, so far, of everybody. */
  async bytes(): Promise<readonly [received: number, sent: number]> {
    const stats = await this.#client.info('stats')
    const of = (what: string): number => Number(new RegExp(`total_net_${what}_bytes:(\\d+)`).exec(stats)?.[1])
    return [of('input'), of('output')]
  }

  close(): void {
    this.#client.destroy()
  }
}

type Client = Awaited<ReturnType<typeof connect>>

function connect(url: string) {
  return createClient({ url }).connect()
}
