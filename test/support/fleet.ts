/**
 * Processes of the tortured application behind a balancer without stickiness, each with a proxy of its own in front of
 * the database, and of Redis if sessions are there, so that one can be killed when it says, or hears, a certain thing.
 */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ApplicationProcess } from '../../example-app/processes/application-process.js'
import { Balancer } from '../../example-app/processes/balancer.js'
import { openProxy, type Proxy } from './proxy.js'

/** Compiled by the scripts that run the tests. */
export const torturedFile = pathToFileURL(resolve(__dirname, '../../.cache/build/test/processes/tortured.js'))

/** `before`: the command does not arrive. `after`: its answer does not. */
export type Moment = 'before' | 'after'

/** What test/processes/tortured.ts tells. */
interface Figures {
  readonly commitsLost: number
}

export interface Member {
  readonly process: ApplicationProcess<Figures>
  readonly proxy: Proxy
  /** In front of Redis. */
  readonly redis: Proxy | undefined
}

/** Where sessions are in Redis. */
export interface FleetRedis {
  readonly url: string
  readonly prefix: string
}

export class Fleet {
  readonly members: Member[] = []
  readonly #databaseUrl: string
  readonly #redis: FleetRedis | undefined
  readonly #balancer: Balancer
  /** Started already, so that nobody has to wait for it. */
  #spare: Promise<Member>

  private constructor(databaseUrl: string, balancer: Balancer, redis: FleetRedis | undefined) {
    this.#databaseUrl = databaseUrl
    this.#redis = redis
    this.#balancer = balancer
    this.#spare = this.#start()
  }

  static async open(databaseUrl: string, count: number, redis?: FleetRedis): Promise<Fleet> {
    const fleet = new Fleet(databaseUrl, await Balancer.open(), redis)
    for (let number = 0; number < count; number++) await fleet.join()
    return fleet
  }

  get url(): string {
    return `http://127.0.0.1:${this.#balancer.port}`
  }

  async #start(): Promise<Member> {
    const proxy = await openProxy(this.#databaseUrl)
    if (this.#redis === undefined)
      return { process: await ApplicationProcess.start(torturedFile, [proxy.url]), proxy, redis: undefined }
    const redis = await openProxy(this.#redis.url)
    const args = [proxy.url, redis.url, this.#redis.prefix]
    return { process: await ApplicationProcess.start(torturedFile, args), proxy, redis }
  }

  /** One more serves. */
  async join(): Promise<void> {
    const member = await this.#spare
    this.#spare = this.#start()
    this.members.push(member)
    this.#balancer.add(member.process.port)
  }

  /** At the next command of that member that matches; resolves when it is dead and another one serves. */
  async killAt(
    member: Member,
    matches: RegExp,
    moment: Moment,
    proxy: Proxy | undefined = member.proxy,
  ): Promise<void> {
    const { process } = member
    const exited = new Promise<void>((resolve, reject) => {
      const kill = (): void => void process.kill().then(() => resolve(), reject)
      if (moment === 'after') {
        void proxy.accident(matches, 'answer lost').then(kill)
        return
      }
      void proxy.accident(matches, 'command lost')
      proxy.onCommand = command => {
        if (matches.test(command)) kill()
      }
    })
    await exited
    await this.#leave(member)
    await this.join()
  }

  /** A new one serves, then this one is sent nothing any more, answers what it has, and ends. Resolves to its exit code. */
  async replace(member: Member): Promise<number | null> {
    await this.join()
    this.members.splice(this.members.indexOf(member), 1)
    await this.#balancer.remove(member.process.port)
    const code = await member.process.close()
    await closeProxies(member)
    return code
  }

  async #leave(member: Member): Promise<void> {
    this.members.splice(this.members.indexOf(member), 1)
    await this.#balancer.remove(member.process.port)
    await closeProxies(member)
  }

  async close(): Promise<void> {
    await this.#balancer.close()
    for (const member of [...this.members, await this.#spare]) {
      await member.process.end()
      await closeProxies(member)
    }
  }
}

async function closeProxies({ proxy, redis }: Member): Promise<void> {
  await proxy.close()
  await redis?.close()
}
