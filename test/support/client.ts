/**
 * An HTTP client that keeps cookies as a browser does and can go away at any moment. On node:http without keep-alive, so
 * that nothing stays open. Knows nothing of sessions.
 */
import {
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as httpRequest,
} from 'node:http'

export interface Sending {
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  /** An object is sent as JSON; chunks, without a Content-Length. */
  readonly body?: string | Buffer | object | undefined
  /** The request is left open: write the rest to `Started.request`, and end it. */
  readonly unfinished?: boolean
}

export interface Answer {
  readonly status: number
  readonly message: string
  readonly headers: IncomingHttpHeaders
  readonly text: string
  json<T = unknown>(): T
}

/** A request that is under way. */
export interface Started {
  readonly request: ClientRequest
  readonly answer: Promise<Answer>
  /** The client goes away; `answer` rejects. */
  readonly leave: () => void
}

/** Sent as they are, one write each: `Transfer-Encoding: chunked`. */
export class Chunks {
  readonly parts: readonly (string | Buffer)[]
  constructor(...parts: readonly (string | Buffer)[]) {
    this.parts = parts
  }
}

export class Client {
  readonly #url: string
  readonly cookies = new Map<string, string>()

  constructor(url: string) {
    this.#url = url
  }

  get(path = '/', sending: Sending = {}): Promise<Answer> {
    return this.send('GET', path, sending)
  }
  post(path = '/', body?: Sending['body'], sending: Sending = {}): Promise<Answer> {
    return this.send('POST', path, { ...sending, body })
  }
  send(method: string, path: string, sending: Sending = {}): Promise<Answer> {
    return this.start(method, path, sending).answer
  }

  start(method: string, path: string, { headers = {}, body, unfinished = false }: Sending = {}): Started {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const sent = { ...(cookie === '' ? {} : { cookie }), ...headers } as Record<string, string | string[]>
    const isJson = typeof body === 'object' && !Buffer.isBuffer(body) && !(body instanceof Chunks)
    if (isJson) sent['content-type'] ??= 'application/json'
    const request = httpRequest(new URL(path, this.#url), { method, agent: false, headers: sent })
    const answer = new Promise<Answer>((resolve, reject) => {
      request.on('error', reject)
      request.on('response', response => {
        this.#remember(response)
        read(response).then(resolve, reject)
      })
    })
    const parts = body instanceof Chunks ? body.parts : []
    for (const part of parts) request.write(part)
    // In one call, so that Node announces the length.
    if (!unfinished) request.end(isJson ? JSON.stringify(body) : body instanceof Chunks ? undefined : body)
    return { request, answer, leave: () => request.destroy(new Error('the client went away')) }
  }

  #remember(response: IncomingMessage): void {
    for (const line of response.headers['set-cookie'] ?? []) {
      const [, name, value] = /^([^=;]+)=([^;]*)/.exec(line) ?? []
      if (name === undefined || value === undefined) continue
      const expires = /;\s*expires=([^;]+)/i.exec(line)?.[1]
      const isGone = value === '' || (expires !== undefined && Date.parse(expires) <= Date.now())
      if (isGone) this.cookies.delete(name)
      else this.cookies.set(name, value)
    }
  }
}

async function read(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  const { statusCode = 0, statusMessage = '', headers } = response
  return { status: statusCode, message: statusMessage, headers, text, json: <T>() => JSON.parse(text) as T }
}
