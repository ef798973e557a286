/** What the compiler makes of an application: each program here is compiled, with the variables that it declares. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const root = resolve(__dirname, '..', '..')

const DECLARED = `
import type {} from 'session-tx'
declare module 'session-tx' { interface SessionData { cart?: string[]; user?: { name: string } } }
`
const KOA = `import Koa from 'koa'\nconst app = new Koa()\n`
const ROUTER = `import Router from '@koa/router'\nconst router = new Router()\n`
const OWN = `
import Koa from 'koa'
import type { SessionTxContext } from 'session-tx'
const app = new Koa<{ seen: number }, SessionTxContext & { shop: string }>()
`
const EXPRESS = `
import express, { type NextFunction, type Request, type RequestHandler, type Response } from 'express'
import { sessionTx } from 'session-tx/express'
const app = express()
const router = express.Router()
void [app, router, sessionTx, undefined as unknown as NextFunction | Request | RequestHandler | Response]
`

/** Program, and the compiler's complaints by number, in order. */
const programs: readonly (readonly [sentence: string, program: string, complaints?: readonly number[]])[] = [
  [
    'Koa: ctx.session has the declared variables and ctx.tx its members',
    `${KOA}app.use(async ctx => {
      ;(ctx.session.cart ??= []).push('a')
      const name: string | undefined = ctx.session.user?.name
      const [rows] = await ctx.tx.query('SELECT 1')
      ctx.body = [name, rows, ctx.tx.attempt + 1]
    })`,
  ],
  [
    'Koa: a declared variable refuses another type',
    `${KOA}app.use(ctx => void (ctx.session.cart = 1))`,
    [2322],
  ],
  ['Koa: ctx.session is never null', `${KOA}app.use(ctx => void ctx.session.id.length)`],
  [
    'Koa: any other variable can be written, and is unknown when it is read',
    `${KOA}app.use(ctx => { ctx.session.other = 1; const n: number = ctx.session.other; void n })`,
    [2322],
  ],
  [
    'Koa: null ends a session, an object replaces it',
    `${KOA}app.use(ctx => { ctx.session = null; ctx.session = { cart: [] } })`,
  ],
  ['Koa: nothing else does', `${KOA}app.use(ctx => void (ctx.session = 5))`, [2322]],
  [
    'Koa: the object that replaces it has the declared types',
    `${KOA}app.use(ctx => void (ctx.session = { cart: 5 }))`,
    [2322],
  ],
  [
    'Koa: members cannot be assigned, but for maxAge',
    `${KOA}app.use(ctx => { ctx.session.maxAge = 1; ctx.session.maxAge = undefined; ctx.session.id = 'x' })`,
    [2540],
  ],
  [
    'Koa: a function of an application that takes its context as Koa.Context',
    `import type Koa from 'koa'\nexport const f = (ctx: Koa.Context): string[] | undefined => ctx.session.cart`,
  ],
  [
    'Koa: a middleware of its own, by Koa.Middleware and Koa.ParameterizedContext',
    `import type Koa from 'koa'
    export const m: Koa.Middleware = ctx => void ctx.session.cart?.push('x')
    export const p = (ctx: Koa.ParameterizedContext): number => ctx.tx.attempt`,
  ],
  [
    'Koa: a context of its own adds SessionTxContext',
    `${OWN}app.use(ctx => { ctx.body = [ctx.session.cart?.length, ctx.tx.id, ctx.shop.length, ctx.state.seen] })`,
  ],
  [
    '@koa/router: ctx.session and ctx.tx beside ctx.params',
    `${ROUTER}router.post('/cart/:item', async ctx => {
      await ctx.tx.execute('UPDATE stock SET n = n - 1 WHERE id = ?', [ctx.params['item'] ?? ''])
      ;(ctx.session.cart ??= []).push(ctx.params['item'] ?? '')
      ctx.body = ctx.session.cart
    })`,
  ],
  [
    '@koa/router: a declared variable refuses another type',
    `${ROUTER}router.get('/', ctx => { ctx.session.cart = 'x' })`,
    [2322],
  ],
  [
    'sessionTx() fits into app.use and router.post',
    `${KOA}${ROUTER}import { sessionTx } from 'session-tx'
    const tx = sessionTx({ veto: ctx => ctx.status === 404 })
    app.use(tx.metrics()).use(tx)
    router.post('/buy', tx.transactional(ctx => { ctx.body = 'ok' }, { retries: 5 }))`,
  ],
  [
    'tx.run hands out a session with the declared variables',
    `import { sessionTx } from 'session-tx'
    export const cart: Promise<string[] | undefined> = sessionTx().run((_tx, session) => session.cart)`,
  ],
  [
    'regenerate, save, destroy, reload: by promise or by callback',
    `${KOA}app.use(async ({ session }) => {
      await session.regenerate()
      await session.regenerate({ keep: ['cart'] })
      session.regenerate(error => void error)
      session.regenerate({ keep: [] }, () => {})
      await session.save(); session.save(error => void error)
      await session.reload(); session.reload(() => {})
      await session.destroy(); session.destroy(() => {})
    })`,
  ],
  ['regenerate takes nothing else', `${KOA}app.use(ctx => void ctx.session.regenerate(5))`, [2769]],
  [
    'session.cookie: what express-session documents',
    `${KOA}app.use(({ session: { cookie } }) => {
      cookie.maxAge = 60_000; cookie.maxAge = null
      cookie.expires = new Date(); cookie.expires = false
      cookie.path = '/shop'; cookie.httpOnly = true; cookie.secure = 'auto'; cookie.sameSite = 'lax'; cookie.domain = 'example.com'
      const left: number | null = cookie.maxAge
      const original: number | null = cookie.originalMaxAge
      void [left, original]
    })`,
  ],
  [
    'session.cookie: a misspelt attribute',
    `${KOA}app.use(ctx => void (ctx.session.cookie.httponly = true))`,
    [2551],
  ],
  [
    'Express: req.session, req.sessionID and req.tx',
    `${EXPRESS}export async function buy(req: Request): Promise<unknown> {
      ;(req.session.cart ??= []).push(req.sessionID)
      await new Promise<void>((done, failed) => req.session.save(error => (error ? failed(error) : done())))
      return (await req.tx.query('SELECT 1'))[0]
    }`,
  ],
  [
    'Express: a handler of app.post and of a router, with its parameters',
    `${EXPRESS}app.post('/cart/:item', async (req, res) => {
      await req.tx.execute('UPDATE stock SET n = n - 1 WHERE id = ?', [req.params.item])
      ;(req.session.cart ??= []).push(req.params.item)
      res.json(req.session.cart)
    })
    router.get('/', (req, res) => void res.send(req.session.user?.name))`,
  ],
  [
    'Express: a declared variable refuses another type',
    `${EXPRESS}export const f = (req: Request) => (req.session.cart = 5)`,
    [2322],
  ],
  [
    'Express: any other variable can be written, and is unknown when it is read',
    `${EXPRESS}app.use(req => { req.session.other = 1; const n: number = req.session.other; void n })`,
    [2322],
  ],
  [
    'Express: null ends a session, an object replaces it, of the declared types',
    `${EXPRESS}app.use(req => { req.session = null; req.session = { cart: [] }; req.session = { cart: 5 } })`,
    [2322],
  ],
  [
    'Express: the id and the transaction cannot be assigned',
    `${EXPRESS}app.use(req => { req.sessionID = 'x'; req.tx = req.tx })`,
    [2540, 2540],
  ],
  [
    'Express: a login as for express-session, by callbacks',
    `${EXPRESS}export const login: RequestHandler = (req, res, next) => {
      req.session.regenerate(error => {
        if (error) return next(error)
        req.session.user = { name: 'ada' }
        req.session.save(failure => (failure ? next(failure) : res.redirect('/')))
      })
    }
    export const logout: RequestHandler = (req, res) => void req.session.destroy(() => res.redirect('/'))`,
  ],
  [
    'Express: sessionTx() fits into app.use, router.use and router.post, and its callbacks get (req, res)',
    `${EXPRESS}const tx = sessionTx({
      veto: (_req, res) => res.statusCode === 404,
      retry: { retries: req => (req.method === 'GET' ? 0 : 3) },
      commitOnError: (error, req, res) => error instanceof Error && req.path === '/login' && !res.headersSent,
    })
    const handler: RequestHandler = (req, res) => void res.json(req.tx.attempt)
    app.use(tx.metrics({ allow: req => req.socket.localPort === 9000 })).use(tx)
    router.use(tx)
    router.post('/buy', tx.transactional(handler, { retries: 5 }))`,
  ],
  [
    'Express: callbacks may be written with the types of Express itself',
    `${EXPRESS}sessionTx({ skip: (req: Request, res: Response) => req.hostname === 'static' || res.locals['skip'] === true })`,
  ],
  [
    'Express: callbacks that ask for a Koa context are refused',
    `${EXPRESS}sessionTx({ skip: ctx => ctx.status === 404 })`,
    [2339],
  ],
  [
    'Express: tx.run hands out a session with the declared variables',
    `${EXPRESS}export const cart: Promise<string[] | undefined> = sessionTx().run((_tx, session) => session.cart)`,
  ],
  [
    'Express without our entry: an application may say by itself what its requests have',
    `import type { Request } from 'express'
    import type { SessionTxRequest } from 'session-tx'
    export const f = (req: Request & SessionTxRequest): number => req.session.cart?.length ?? req.tx.attempt`,
  ],
]

let folder: string
let complaints: Map<string, number[]>

beforeAll(async () => {
  await mkdir(join(root, '.cache'), { recursive: true })
  folder = await mkdtemp(join(root, '.cache', 'types-'))
  const files = await Promise.all(
    programs.map(async ([, program], place) => {
      const file = `program-${place}.ts`
      await writeFile(join(folder, file), `${DECLARED}${program}\nexport {}\n`)
      return file
    }),
  )
  const paths = {
    'session-tx': [join(root, 'lib/index.ts')],
    'session-tx/express': [join(root, 'lib/express.ts')],
  }
  const compilerOptions = { noEmit: true, noUnusedLocals: false, types: ['node'], paths }
  const config = { extends: '../../tsconfig.json', compilerOptions, include: [], files }
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
  complaints = await compile(folder)
}, 120_000)

afterAll(() => rm(folder, { recursive: true, force: true }))

test.each(programs.map(([sentence, , expected = []], place) => [sentence, expected, place] as const))(
  '%s',
  (_, expected, place) => expect(complaints.get(`program-${place}.ts`) ?? []).toEqual(expected),
)

test('nothing else is complained about', () => {
  expect([...complaints.keys()].filter(file => !/^program-\d+\.ts$/.test(file))).toEqual([])
})

/** Numbers of the compiler's complaints, by file. */
async function compile(project: string): Promise<Map<string, number[]>> {
  const tsc = join(root, 'node_modules', '.bin', 'tsc')
  const { stdout } = await promisify(execFile)(tsc, ['-p', '.', '--pretty', 'false'], { cwd: project }).catch(
    (failure: { stdout: string }) => failure,
  )
  const found = new Map<string, number[]>()
  for (const [, file = '', number] of stdout.matchAll(/^(\S[^(\n]*)\(\d+,\d+\): error TS(\d+)/gm))
    found.set(file, [...(found.get(file) ?? []), Number(number)])
  if (found.size === 0 && stdout !== '') throw new Error(stdout)
  return found
}
