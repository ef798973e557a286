/**
 * The load: a number of keep-alive clients over plain sockets, each with a session of its own (or all with one), each
 * sending its next request when the last one is answered. Written on sockets because an HTTP client costs more than the servers measured
 * here. Knows nothing of what it loads.
 */
import { connect, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'

export interface Load {
  /** With 200. */
  readonly answered: number
  /** With 503. */
  readonly refused: number
  readonly seconds: number
  /** Of each answer, in no order. */
  readonly latenciesMs: readonly number[]
}

/** How they behave. */
export interface Manner {
  /** A client rests that long after each answer. */
  readonly thinkMs?: number
  /** So many share a session and ask at the same time, as the frames of a page do. */
  readonly together?: number
  /** A 503 is counted; without it, it ends the benchmark as whatever else is not 200. */
  readonly mayBeRefused?: boolean
}

export class Clients {
  readonly #port: number
  readonly #clients: readonly Client[]
  readonly #manner: Manner

  private constructor(port: number, clients: readonly Client[], manner: Manner) {
    this.#port = port
    this.#clients = clients
    this.#manner = manner
  }

  /** Client n asks for `path(n)`, counted from 1. */
  static async open(
    port: number,
    count: number,
    path: (client: number) => string,
    manner: Manner = {},
  ): Promise<Clients> {
    const numbers = Array.from({ length: count }, (_, index) => index + 1)
    const clients = await Promise.all(
      numbers.map(number => Client.open(port, path(number), manner.mayBeRefused)),
    )
    return new Clients(port, clients, manner)
  }

  get #first(): Client {
    const [first] = this.#clients
    if (first === undefined) throw new Error('there are no clients')
    return first
  }

  /** One request of each client, so that all have their session. */
  greet(): Promise<void> {
    return this.each(1)
  }

  /** So many requests of each client, one after the other. */
  async each(times: number): Promise<void> {
    const askAll = async (client: Client): Promise<void> => {
      for (let count = 0; count < times; count++) await client.request()
    }
    await Promise.all(this.#clients.map(askAll))
  }

  /** The same, but with the session that the first client gets. */
  greetInOneSession(): Promise<void> {
    return greetTogether(this.#clients)
  }

  /** The same for each of the groups that ask together. */
  async greetInGroups(): Promise<void> {
    await Promise.all(this.#groups.map(greetTogether))
  }

  get #groups(): readonly (readonly Client[])[] {
    const { together: size = 1 } = this.#manner
    const count = Math.ceil(this.#clients.length / size)
    return Array.from({ length: count }, (_, group) => this.#clients.slice(group * size, (group + 1) * size))
  }

  /** What the session of the first client is answered elsewhere. */
  ask(path: string): Promise<string> {
    return this.#askAs(this.#first, path)
  }

  /** The same of every session. */
  askEach(path: string): Promise<string[]> {
    const firsts = this.#groups.flatMap(group => group.slice(0, 1))
    return Promise.all(firsts.map(client => this.#askAs(client, path)))
  }

  async #askAs(client: Client, path: string): Promise<string> {
    const asking = await Client.open(this.#port, path)
    try {
      asking.joinSession(client)
      await asking.request()
      return asking.body
    } finally {
      asking.close()
    }
  }

  async run(durationMs: number): Promise<Load> {
    const { thinkMs = 0 } = this.#manner
    const startMs = performance.now()
    const refusedBefore = this.refused
    const answers = await Promise.all(
      this.#groups.map(group => runUntil(startMs + durationMs, group, thinkMs)),
    )
    const seconds = (performance.now() - startMs) / 1000
    const latenciesMs = answers.flat()
    const refused = this.refused - refusedBefore
    return { answered: latenciesMs.length - refused, refused, seconds, latenciesMs }
  }

  /** All requests ever refused. */
  get refused(): number {
    return this.#clients.reduce((sum, client) => sum + client.refused, 0)
  }

  /** All requests ever answered. */
  get answered(): number {
    return this.#clients.reduce((sum, client) => sum + client.answered, 0)
  }

  close(): void {
    for (const client of this.#clients) client.close()
  }
}

async function greetTogether([first, ...others]: readonly Client[]): Promise<void> {
  if (first === undefined) return
  await first.request()
  for (const other of others) other.joinSession(first)
  await Promise.all(others.map(client => client.request()))
}

/** Resolves to how long each answer took, in milliseconds. */
async function runUntil(endMs: number, group: readonly Client[], thinkMs: number): Promise<number[]> {
  const latenciesMs: number[] = []
  const ask = async (client: Client): Promise<void> => {
    const startMs = performance.now()
    await client.request()
    latenciesMs.push(performance.now() - startMs)
  }
  while (performance.now() < endMs) {
    await Promise.all(group.map(ask))
    if (thinkMs > 0) await new Promise(resolve => setTimeout(resolve, thinkMs))
  }
  return latenciesMs
}

const HEAD_END = '\r\n\r\n'

class Client {
  answered = 0
  refused = 0
  /** Of the last answer. */
  body = ''
  #cookie = ''
  readonly #socket: Socket
  readonly #path: string
  #request: string
  #received = ''
  #waiting: { readonly resolve: () => void; readonly reject: (reason: Error) => void } | undefined

  readonly #mayBeRefused: boolean

  private constructor(socket: Socket, path: string, mayBeRefused: boolean) {
    this.#socket = socket
    this.#mayBeRefused = mayBeRefused
    this.#path = path
    this.#request = this.#makeRequest()
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => this.#data(text))
    socket.on('error', error => this.#waiting?.reject(error))
    socket.on('close', () => this.#waiting?.reject(new Error(`the server hung up on ${path}`)))
  }

  static open(port: number, path: string, mayBeRefused = false): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new Client(socket, path, mayBeRefused)))
      socket.once('error', reject)
    })
  }

  #makeRequest(): string {
    return `GET ${this.#path} HTTP/1.1\r\nHost: localhost\r\n${this.#cookie}\r\n`
  }

  joinSession(other: Client): void {
    this.#cookie = other.#cookie
    this.#request = this.#makeRequest()
  }

  request(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket.write(this.#request, 'latin1')
    })
  }

  #data(text: string): void {
    this.#received += text
    const headEnd = this.#received.indexOf(HEAD_END)
    if (headEnd < 0) return
    const length = /\r\ncontent-length: (\d+)/i.exec(this.#received)?.[1]
    if (length === undefined) return this.#waiting?.reject(new Error('an answer without Content-Length'))
    if (this.#received.length < headEnd + HEAD_END.length + Number(length)) return
    const answer = this.#received
    this.#received = ''
    if (this.#mayBeRefused && answer.startsWith('HTTP/1.1 503 ')) {
      this.refused += 1
      return this.#waiting?.resolve()
    }
    if (!answer.startsWith('HTTP/1.1 200 ')) return this.#waiting?.reject(new Error(`not a 200: ${answer}`))
    if (this.answered === 0) this.#keepCookies(answer.slice(0, headEnd))
    this.body = answer.slice(headEnd + HEAD_END.length)
    this.answered += 1
    this.#waiting?.resolve()
  }

  /** The session does not change its name afterwards. */
  #keepCookies(head: string): void {
    const cookies = [...head.matchAll(/^set-cookie: ([^;\r]+)/gim)].map(match => match[1])
    if (cookies.length === 0) return
    this.#cookie = `Cookie: ${cookies.join('; ')}\r\n`
    this.#request = this.#makeRequest()
  }

  close(): void {
    this.#waiting = undefined
    this.#socket.destroy()
  }
}
