/**
 * multer on Express and @koa/multer on Koa: files kept in memory are the same on each attempt, wherever the parser stands; files
 * on disk are written by each attempt if it stands below session-tx, and once if it stands above.
 */
import koaMulter from '@koa/multer'
import Router from '@koa/router'
import type { Request } from 'express'
import multer from 'multer'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Tx } from '../../lib/index.js'
import { koas, serveTx, type Served, type TxContext, type TxMiddleware } from '../support/app.js'
import { expresses, serveExpress } from '../support/express-app.js'

const LIMIT = 10_000

interface File {
  readonly originalname: string
  readonly size: number
  readonly path?: string
  readonly buffer?: Buffer
}
/** What a handler finds. */
interface Found {
  readonly tx: Tx
  readonly session: Record<string, unknown>
  readonly title: unknown
  readonly files: File[]
}
type Handler = (found: Found) => unknown

interface Site extends Served {
  readonly tx: { stats(): { readonly sessions: unknown } }
}
/** `dest` as multer has it: where files are written; undefined: they stay in memory. */
type Build = (place: 'above' | 'below', dest: string | undefined, handler: Handler) => Promise<Site>

const options = { hold: { requestBytesMax: LIMIT } }

const sites: readonly (readonly [string, Build])[] = [
  ...expresses.map(
    ([name, express]) =>
      [
        `multer on ${name}`,
        (place, dest, handler) => {
          const upload = multer(dest === undefined ? {} : { dest }).array('photo')
          return serveExpress({
            express,
            options,
            build: (app, tx) => {
              if (place === 'above') app.use(upload)
              app.use(tx)
              if (place === 'below') app.use(upload)
            },
            below: async (req: Request, res) => {
              const { tx, session } = req
              const title = (req.body as { readonly title?: unknown }).title
              res.json(await handler({ tx, session, title, files: req.files as File[] }))
            },
          })
        },
      ] as const satisfies readonly [string, Build],
  ),
  ...koas.map(
    ([name, Koa]) =>
      [
        `@koa/multer on ${name}`,
        (place, dest, handler) => {
          const upload = koaMulter(dest === undefined ? {} : { dest }).array('photo') as TxMiddleware
          const router = new Router<object, TxContext>()
          router.post('/', async ctx => {
            const { tx, session } = ctx
            const { body, files } = ctx.request as unknown as { body: { title?: unknown }; files: File[] }
            expect((ctx as { readonly files?: unknown }).files).toEqual(files)
            ctx.body = await handler({ tx, session, title: body.title, files })
          })
          const routes = router.routes() as unknown as TxMiddleware
          const [above, below] = place === 'above' ? [[upload], [routes]] : [[], [upload, routes]]
          return serveTx({ Koa, options, above, below })
        },
      ] as const satisfies readonly [string, Build],
  ),
]

const headers = { 'content-type': 'multipart/form-data; boundary=---b' }
function part(name: string, content: string, more = ''): string {
  return `-----b\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${content}\r\n`
}
function form(content: string): string {
  const photo = (name: string): string => part('photo', content, `; filename="${name}"`)
  return [part('title', 'Holiday'), photo('a.txt'), photo('b.txt'), '-----b--\r\n'].join('')
}

describe.each(sites)('%s', (_name, build) => {
  let site: Site
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'session-tx-'))
  })
  afterEach(async () => {
    await site.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const contents = ({ path, buffer }: File): string =>
    (path === undefined ? (buffer ?? '') : readFileSync(path)).toString()
  /** Writes down what each attempt finds, spoils it, and loses twice. */
  function thirdTime(seen: unknown[]): Handler {
    return ({ tx, session, title, files }) => {
      seen.push([title, files.map(file => [file.originalname, contents(file).length])])
      files.pop()
      if (tx.attempt < 3) tx.conflict()
      session['uploads'] = seen.length
      return 'ok'
    }
  }
  function post(content = 'x'.repeat(1_000)): Promise<{ readonly status: number }> {
    return site.client().send('POST', '/', { body: form(content), headers })
  }

  test.each([
    ['in memory', 'above', 0],
    ['in memory', 'below', 0],
    ['on disk', 'above', 2],
    ['on disk', 'below', 6],
  ] as const)(
    '%s, %s session-tx: the same on each of 3 attempts; files on disk: %d',
    async (where, place, written) => {
      const seen: unknown[] = []
      site = await build(place, where === 'on disk' ? folder : undefined, thirdTime(seen))
      expect((await post()).status).toBe(200)
      const expected = [
        'Holiday',
        [
          ['a.txt', 1_000],
          ['b.txt', 1_000],
        ],
      ]
      expect(seen).toEqual([expected, expected, expected])
      expect(readdirSync(folder)).toHaveLength(written)
    },
  )

  test('above session-tx an upload of any size can be run again', async () => {
    const seen: unknown[] = []
    site = await build('above', folder, thirdTime(seen))
    expect((await post('x'.repeat(LIMIT))).status).toBe(200)
    expect(seen).toHaveLength(3)
  })

  test('below session-tx one over hold.requestBytesMax is served once', async () => {
    const seen: unknown[] = []
    site = await build('below', undefined, thirdTime(seen))
    expect((await post('x'.repeat(LIMIT))).status).toBe(503)
    expect(seen).toHaveLength(1)
  })

  test('an error after the upload stores nothing', async () => {
    site = await build('below', undefined, ({ session }) => {
      session['uploads'] = 1
      throw new Error('not a photo')
    })
    expect((await post()).status).toBe(500)
    expect(site.tx.stats().sessions).toMatchObject({ live: 0 })
  })

  test('a broken form is an error of the request, and no attempt after it', async () => {
    const seen: unknown[] = []
    site = await build('below', undefined, thirdTime(seen))
    const answer = await site.client().send('POST', '/', { body: form('x').slice(0, -20), headers })
    expect(answer.status).toBeGreaterThanOrEqual(400)
    expect(seen).toEqual([])
  })
})
