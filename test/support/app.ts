/**
 * Applications on a free port, with session-tx in them or without, on both supported versions of Koa. `close()` ends
 * the server first and the middleware after it, as an application should.
 */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'
import Koa2 from 'koa2'
import {
  type KoaContext,
  sessionTx,
  type SessionTx,
  type SessionTxContext,
  type SessionTxOptions,
} from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { Client } from './client.js'
import { promptly } from './clock.js'

export type TxApp = Koa<Koa.DefaultState, SessionTxContext>
export type TxContext = Koa.ParameterizedContext<Koa.DefaultState, SessionTxContext>
export type TxMiddleware = Koa.Middleware<Koa.DefaultState, SessionTxContext>
type KoaClass = new () => TxApp

/** For `describe.each`. */
export const koas: readonly (readonly [name: string, Koa: KoaClass])[] = [
  ['Koa 3', Koa as KoaClass],
  ['Koa 2', Koa2 as KoaClass],
]

export interface Served {
  readonly url: string
  /** A new client each time, with no cookies. */
  readonly client: () => Client
  readonly close: () => Promise<void>
}

export interface GentlyServed extends Served {
  /** As a deployment does: waits for whoever is being answered. */
  readonly closeGently: () => Promise<void>
}

/** Any request listener on a free port of the loopback interface. */
export async function serve(listener: RequestListener): Promise<GentlyServed> {
  const server = createServer(listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const close = (): Promise<void> =>
    new Promise(resolve => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  const closeGently = (): Promise<void> => new Promise(resolve => void server.close(() => resolve()))
  return { url, client: () => new Client(url), close, closeGently }
}

export interface TxServed extends Served {
  readonly app: TxApp
  readonly tx: SessionTx
  /** What the application's `error` event told, in order. */
  readonly errors: readonly unknown[]
}

export interface TxServing {
  /** Koa 3 unless told otherwise. */
  readonly Koa?: KoaClass
  readonly options?: SessionTxOptions<KoaContext>
  /** Real time without waiting between attempts, unless told otherwise. */
  readonly environment?: Environment
  readonly above?: readonly TxMiddleware[]
  /** What stands below session-tx. */
  readonly below: TxMiddleware | readonly TxMiddleware[]
}

/** An application with session-tx in its stack. */
export async function serveTx({
  Koa: App = Koa as KoaClass,
  options,
  environment = promptly,
  above = [],
  below,
}: TxServing): Promise<TxServed> {
  const app = new App()
  const errors: unknown[] = []
  app.on('error', error => errors.push(error))
  const tx = sessionTx(options, environment)
  for (const middleware of above) app.use(middleware)
  app.use(tx)
  for (const middleware of typeof below === 'function' ? [below] : below) app.use(middleware)
  const handle = app.callback()
  const served = await serve((req, res) => void handle(req, res))
  const close = async (): Promise<void> => {
    await served.close()
    await tx.close()
  }
  return { ...served, app, tx, errors, close }
}
