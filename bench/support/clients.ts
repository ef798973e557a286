/**
 * The load: a number of keep-alive clients over plain sockets, each with a session of its own (or all with one), each
 * sending its next request when the last one is answered. Written on sockets because an HTTP client costs more than the servers measured
 * here. Knows nothing of what it loads.
 */
import { connect, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'

export interface Load {
  readonly answered: number
  readonly seconds: number
  /** Of each answer, in no order. */
  readonly latenciesMs: readonly number[]
}

export class Clients {
  readonly #port: number
  readonly #clients: readonly Client[]

  private constructor(port: number, clients: readonly Client[]) {
    this.#port = port
    this.#clients = clients
  }

  /** Client n asks for `path(n)`, counted from 1. */
  static async open(port: number, count: number, path: (client: number) => string): Promise<Clients> {
    const numbers = Array.from({ length: count }, (_, index) => index + 1)
    return new Clients(port, await Promise.all(numbers.map(number => Client.open(port, path(number)))))
  }

  get #first(): Client {
    const [first] = this.#clients
    if (first === undefined) throw new Error('there are no clients')
    return first
  }

  /** One request of each client, so that all have their session. */
  async greet(): Promise<void> {
    await Promise.all(this.#clients.map(client => client.request()))
  }

  /** The same, but with the session that the first client gets. */
  async greetInOneSession(): Promise<void> {
    const [, ...others] = this.#clients
    await this.#first.request()
    for (const other of others) other.joinSession(this.#first)
    await Promise.all(others.map(client => client.request()))
  }

  /** What the session of the first client is answered elsewhere. */
  async ask(path: string): Promise<string> {
    const asking = await Client.open(this.#port, path)
    try {
      asking.joinSession(this.#first)
      await asking.request()
      return asking.body
    } finally {
      asking.close()
    }
  }

  async run(durationMs: number): Promise<Load> {
    const startMs = performance.now()
    const latencies = await Promise.all(this.#clients.map(client => client.runUntil(startMs + durationMs)))
    const seconds = (performance.now() - startMs) / 1000
    const latenciesMs = latencies.flat()
    return { answered: latenciesMs.length, seconds, latenciesMs }
  }

  /** All requests ever answered. */
  get answered(): number {
    return this.#clients.reduce((sum, client) => sum + client.answered, 0)
  }

  close(): void {
    for (const client of this.#clients) client.close()
  }
}

const HEAD_END = '\r\n\r\n'

class Client {
  answered = 0
  /** Of the last answer. */
  body = ''
  #cookie = ''
  readonly #socket: Socket
  readonly #path: string
  #request: string
  #received = ''
  #waiting: { readonly resolve: () => void; readonly reject: (reason: Error) => void } | undefined

  private constructor(socket: Socket, path: string) {
    this.#socket = socket
    this.#path = path
    this.#request = this.#makeRequest()
    socket.setNoDelay(true)
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => this.#data(text))
    socket.on('error', error => this.#waiting?.reject(error))
    socket.on('close', () => this.#waiting?.reject(new Error(`the server hung up on ${path}`)))
  }

  static open(port: number, path: string): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new Client(socket, path)))
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

  /** Resolves to how long each answer took, in milliseconds. */
  async runUntil(endMs: number): Promise<number[]> {
    const latenciesMs: number[] = []
    for (let startMs = performance.now(); startMs < endMs; ) {
      await this.request()
      const nowMs = performance.now()
      latenciesMs.push(nowMs - startMs)
      startMs = nowMs
    }
    return latenciesMs
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
