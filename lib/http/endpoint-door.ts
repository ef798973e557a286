/** What a framework's door to an endpoint hands in and gets out: plain fields. Types only. */
import type { IncomingHttpHeaders } from 'node:http'

interface Asked<Context> {
  readonly method: string
  readonly path: string
  readonly remoteAddress: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly context: Context
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** undefined: the request is not for it. */
export type Endpoint<Context> = (asked: Asked<Context>) => Promise<Answer> | undefined
