/** An HTTP client as a browser is one: keeps its connections and its cookies. Any number of tabs may use it at once. */
import { Agent, request } from 'node:http'

export interface Answer {
  readonly status: number
  readonly text: string
}

export class Browser {
  readonly #port: number
  readonly #agent = new Agent({ keepAlive: true })
  readonly #cookies = new Map<string, string>()

  constructor(port: number) {
    this.#port = port
  }

  send(method: string, path: string, body?: object): Promise<Answer> {
    const text = body === undefined ? '' : JSON.stringify(body)
    const headers: Record<string, string> = { 'Content-Length': String(Buffer.byteLength(text)) }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    if (this.#cookies.size > 0) headers['Cookie'] = [...this.#cookies].map(pair => pair.join('=')).join('; ')
    return new Promise((resolve, reject) => {
      const sent = request(
        { host: '127.0.0.1', port: this.#port, method, path, headers, agent: this.#agent },
        response => {
          for (const cookie of response.headers['set-cookie'] ?? []) this.#keep(cookie)
          const chunks: Buffer[] = []
          response.on('data', (chunk: Buffer) => chunks.push(chunk))
          response.on('error', reject)
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
          )
        },
      )
      sent.on('error', reject)
      sent.end(text)
    })
  }

  #keep(cookie: string): void {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
    if (name !== undefined && value !== undefined) this.#cookies.set(name, value)
  }

  close(): void {
    this.#agent.destroy()
  }
}
