/**
 * Makes programs of the examples in the manual. The convention:
 *
 *   ```ts        is type-checked, strictly, with the sources of the library.
 *   ```ts run    is run as well. It must not throw; it may assert.
 *   ```ts part   of a page are one module, with prose in between. They are checked together; a test of their own runs them.
 *   ```sql       of a page is what its examples find in their database.
 *   ```http      after a `ts run` lists requests to what that built, and the whole answers, with the cookies of one
 *                browser: `METHOD path`, then `status body`, an empty line between two of them.
 *
 * A block with an import (or `declare module`) is a whole module. Every other is the inside of an async function where
 * the names of {@link Given} exist. Knows nothing of what the examples show.
 */
import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import Router from '@koa/router'
import { transformSync } from '@swc/core'
import express, { type Express } from 'express'
import Koa, { type DefaultState } from 'koa'
import core from 'mysql2'
import mysql, { type Pool } from 'mysql2/promise'
import * as expressLibrary from '../../lib/express.js'
import * as library from '../../lib/index.js'
import { type Block, blocksOf, type Page } from './markdown.js'

type Context = library.SessionTxContext

/** What the inside of a function finds; {@link GIVEN_TYPES} says the same to the compiler. */
interface Given {
  readonly app: Koa<DefaultState, Context>
  readonly router: Router<DefaultState, Context>
  readonly pool: Pool
  readonly tx: library.SessionTx
  readonly sessionTx: typeof library.sessionTx
  readonly ambientPool: typeof library.ambientPool
  readonly resolvers: typeof library.resolvers
  readonly assert: typeof assert
  /** Pushes to `mails`. */
  readonly sendMail: (text: string) => void
  readonly mails: readonly string[]
}

/** For a file beside the checked ones. `handler` is for those that only name one. */
export const GIVEN_TYPES = `
import strict from 'node:assert/strict'
import type Router from '@koa/router'
import type Koa from 'koa'
import type { DefaultState } from 'koa'
import type { Pool } from 'mysql2/promise'
import type * as library from 'session-tx'
declare global {
  const app: Koa<DefaultState, library.SessionTxContext>
  const router: Router<DefaultState, library.SessionTxContext>
  const pool: Pool
  const tx: library.SessionTx
  const sessionTx: typeof library.sessionTx
  const ambientPool: typeof library.ambientPool
  const resolvers: typeof library.resolvers
  const assert: typeof strict
  const sendMail: (text: string) => void
  const mails: readonly string[]
  const handler: library.KoaMiddleware
  type SessionTxError = library.SessionTxError
}
`

const isModule = ({ code }: Block): boolean => /^(?:import|export|declare module)\b/m.test(code)

/** A module that the compiler can check; its lines are the block's. */
export function asModule(block: Block): string {
  if (isModule(block)) return `${block.code}\nexport {}\n`
  return `export {}; void async function example() { ${block.code}}\n`
}

/** The TypeScript of a page as programs: its parts are one, with each line where the page has it. */
export function programsOf(page: Page): Block[] {
  const blocks = blocksOf(page).filter(({ language }) => language === 'ts')
  const isPart = ({ marks }: Block): boolean => marks.includes('part')
  const [first, ...others] = blocks.filter(isPart)
  if (first === undefined) return blocks
  let { code } = first
  for (const part of others)
    code += '\n'.repeat(part.line - first.line - code.split('\n').length + 1) + part.code
  return [{ ...first, code }, ...blocks.filter(block => !isPart(block))]
}

/** What the parts of a page export, with these modules in place of what they import. */
export function exportsOf(page: Page, modules: Readonly<Record<string, unknown>>): unknown {
  const exports = {}
  const parts = programsOf(page).find(({ marks }) => marks.includes('part'))
  if (parts === undefined) throw new Error(`${page.name} has no parts of a module`)
  evaluate(javascript(parts.code), { exports, require: (name: string) => modules[name] })
  return exports
}

export interface Built {
  readonly server: Server
  close(): Promise<void>
}

/** Runs an example on a database. Resolves when it has run; what it built listens. */
export function run(block: Block, databaseUrl: string): Promise<Built> {
  return isModule(block) ? runModule(block, databaseUrl) : runInside(block, databaseUrl)
}

async function runInside(block: Block, databaseUrl: string): Promise<Built> {
  const pool = mysql.createPool({ uri: databaseUrl, connectionLimit: 4 })
  const tx = library.sessionTx({ pool })
  const app = new Koa<DefaultState, Context>()
  const router = new Router<DefaultState, Context>()
  const mails: string[] = []
  const sendMail = (text: string): void => void mails.push(text)
  const { sessionTx, ambientPool, resolvers } = library
  const given: Given = { app, router, pool, tx, sessionTx, ambientPool, resolvers, assert, sendMail, mails }
  app.silent = true
  const code = javascript(`async function example() { ${block.code}}`)
  await (evaluate(`${code}\nreturn example()`, { ...given }) as Promise<void>)
  app.use(tx).use(router.routes())
  return listening(app.listen(0), [() => tx.close(), () => pool.end()])
}

/** What an example may load as it is. */
const BUILDERS = /^(?:kysely|knex|typeorm|sequelize|drizzle-orm(?:\/[\w-]+)?)$/

/** A whole program: it makes its own pool and server, so these are remembered where they are made. */
async function runModule(block: Block, databaseUrl: string): Promise<Built> {
  const closers: (() => Promise<void>)[] = []
  let server: Server | undefined
  class ListeningKoa extends Koa {
    override listen(): Server {
      server = super.listen(0)
      return server
    }
  }
  const listeningExpress = (): Express => {
    const app = express()
    app.set('env', 'test') // does not print its errors
    const listen = (): Server => {
      server = createServer(app).listen(0)
      return server
    }
    return Object.assign(app, { listen })
  }
  /** Closed before the pools. */
  const closing =
    <Options, Tx extends { close(): Promise<void> }>(sessionTx: (options?: Options) => Tx) =>
    (options?: Options): Tx => {
      const tx = sessionTx(options)
      closers.unshift(() => tx.close())
      return tx
    }
  const createPool = (options: mysql.PoolOptions): Pool => {
    const pool = mysql.createPool({ ...options, connectionLimit: 4 })
    closers.push(() => pool.end())
    return pool
  }
  const createCorePool = (options: core.PoolOptions): core.Pool => {
    const pool = core.createPool({ ...options, connectionLimit: 4 })
    closers.push(() => pool.promise().end())
    return pool
  }
  const modules: Readonly<Record<string, unknown>> = {
    koa: ListeningKoa,
    '@koa/router': Router,
    'mysql2/promise': { __esModule: true, default: { createPool } },
    mysql2: { createPool: createCorePool },
    'session-tx': { ...library, sessionTx: closing(library.sessionTx) },
    express: { __esModule: true, default: Object.assign(listeningExpress, express) },
    'session-tx/express': { ...expressLibrary, sessionTx: closing(expressLibrary.sessionTx) },
  }
  const env = { ...process.env, MYSQL_URL: databaseUrl }
  evaluate(javascript(block.code), {
    exports: {},
    require: (name: string) => modules[name] ?? (BUILDERS.test(name) ? require(name) : undefined),
    process: { env },
    console: { log: () => {} },
  })
  if (server === undefined) throw new Error(`${block.page}:${block.line} listens to nothing`)
  return listening(server, closers)
}

async function listening(server: Server, closers: readonly (() => Promise<void>)[]): Promise<Built> {
  if (!server.listening) await new Promise(resolve => server.once('listening', resolve))
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
    for (const closer of closers) await closer()
  }
  return { server, close }
}

function javascript(code: string): string {
  const { code: compiled } = transformSync(code, {
    jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
    module: { type: 'commonjs' },
  })
  return compiled
}

/** Runs the body of a function with these names. */
function evaluate(body: string, names: Readonly<Record<string, unknown>>): unknown {
  const call = Reflect.construct(Function, [...Object.keys(names), body]) as (...values: unknown[]) => unknown
  return call(...Object.values(names))
}

export interface Exchange {
  readonly method: string
  readonly path: string
  /** `status body` */
  readonly answer: string
}

export function exchangesOf({ page, line, code }: Block): Exchange[] {
  return code
    .trim()
    .split(/\n\n+/)
    .map(text => {
      const [, method, path, answer] = /^([A-Z]+) (\/\S*)\n(\d{3}(?: [\s\S]*)?)$/.exec(text) ?? []
      if (method === undefined || path === undefined || answer === undefined) {
        throw new Error(`${page}:${line}: an exchange is 'METHOD /path', then 'status body', got: ${text}`)
      }
      return { method, path, answer }
    })
}
