/** What a framework's door to an endpoint hands in and gets out: plain fields. Knows no framework. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'

interface Asked<Context> {
  readonly method: string
  readonly path: string
  /** What follows the question mark. */
  readonly query: string
  /** False when the server has stopped listening. */
  readonly isServing: () => boolean
  readonly remoteAddress: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly context: Context
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** In the place of `body`. */
  readonly stream?: Readable | undefined
}

/** undefined: the request is not for it. */
export type Endpoint<Context> = (asked: Asked<Context>) => Promise<Answer> | undefined

/** The server that a socket belongs to knows whether it listens; where there is none to ask, it does. */
export function serving(socket: object): () => boolean {
  const { server } = socket as { server?: { listening?: boolean } }
  return () => server?.listening !== false
}

/** An answer that goes on until `stream` ends or the client goes away, which ends the stream: pipe alone would not. */
export function sendStream(res: ServerResponse, stream: Readable): void {
  res.once('close', () => stream.destroy())
  res.flushHeaders()
  stream.pipe(res)
}
