/**
 * A balancer without stickiness: each request goes to the next process, whatever connection or session it belongs to.
 * Passes on what it gets as it gets it, and knows nothing of what it balances.
 *
 * A request is tried on another process only if it surely was not received, which is known only when nobody listens
 * there. Once a connection was open, the process may have committed before it died; so the answer is then 502.
 */
import { once } from 'node:events'
import {
  Agent,
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request as send,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream'

const HOST = '127.0.0.1'

/** Headers that speak of one connection, and those that only an answer of the next hop could honour. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'keep-alive',
  'proxy-connection',
  'te',
  'upgrade',
])

interface Target {
  readonly port: number
  /** Keeps the connections to this process, and no other's. */
  readonly agent: Agent
  /** Requests that were sent there and are not answered. */
  running: number
  onIdle: (() => void) | undefined
}

export class Balancer {
  readonly #server: Server
  readonly #targets: Target[] = []
  #turn = 0

  private constructor() {
    this.#server = createServer((request, response) => this.#pass(request, response))
    // When a connection ends is the client's to say: one that we close may have a request on its way.
    this.#server.keepAliveTimeout = 0
  }

  /** @param ports on this machine, in the order of their turns */
  static async open(ports: readonly number[] = []): Promise<Balancer> {
    const balancer = new Balancer()
    ports.forEach(port => balancer.add(port))
    balancer.#server.listen(0, HOST)
    await once(balancer.#server, 'listening')
    return balancer
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  add(port: number): void {
    const agent = new Agent({ keepAlive: true })
    this.#targets.push({ port, agent, running: 0, onIdle: undefined })
  }

  /** Sends nothing there any more. Resolves when what was sent has been answered and the connections are closed. */
  async remove(port: number): Promise<void> {
    const place = this.#targets.findIndex(target => target.port === port)
    const [target] = place < 0 ? [] : this.#targets.splice(place, 1)
    if (target === undefined) throw new Error(`nothing is sent to port ${port}`)
    if (target.running > 0) await new Promise<void>(resolve => (target.onIdle = resolve))
    target.agent.destroy()
  }

  /** At once: who waits for an answer gets none. */
  async close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    for (const { agent } of this.#targets) agent.destroy()
    await closed
  }

  #pass(request: IncomingMessage, response: ServerResponse, tried = new Set<Target>()): void {
    const left = this.#targets.filter(one => !tried.has(one))
    const target = left[this.#turn++ % left.length]
    if (target === undefined) return refuse(response, 'no process is there to answer this')
    target.running += 1
    const { port, agent } = target
    const { method = 'GET', url = '/' } = request
    const headers = passedOn(request.rawHeaders)
    const sent = send({ host: HOST, port, agent, method, path: url, headers })
    // Nothing of the body may be gone when the next process is tried.
    whenConnected(sent, () => request.pipe(sent))
    const leave = (): void => void sent.destroy()
    response.once('close', leave)
    sent.once('close', () => {
      response.off('close', leave)
      target.running -= 1
      if (target.running === 0) target.onIdle?.()
    })
    sent.once('response', answer => {
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage, passedOn(answer.rawHeaders))
      // An answer that is cut off on the way must not look complete: pipeline destroys the other end.
      pipeline(answer, response, () => {})
    })
    sent.on('error', error => {
      if (response.headersSent || response.destroyed) return
      if (wasRefused(error)) this.#pass(request, response, tried.add(target))
      else refuse(response, 'the process that got this request ended before it answered')
    })
  }
}

function whenConnected(sent: ClientRequest, action: () => void): void {
  sent.once('socket', socket => {
    if (socket.connecting) socket.once('connect', action)
    else action()
  })
}

function wasRefused(error: Error): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException
  return code === 'ECONNREFUSED' && syscall === 'connect'
}

function passedOn(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter((_, place) => {
    const name = rawHeaders[place - (place % 2)] ?? ''
    return !OF_THE_CONNECTION.has(name.toLowerCase())
  })
}

function refuse(response: ServerResponse, sentence: string): void {
  response.writeHead(502, { 'Content-Type': 'text/plain; charset=utf-8' }).end(sentence)
}
