/** connect-flash on Express, mounted as its README shows, below session-tx: a message is shown once, whatever races are lost. */
import flash from 'connect-flash'
import type { Request } from 'express'
import { Barrier } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { type ExpressServed, expresses, serveExpress } from '../support/express-app.js'

describe.each(expresses)('%s', (_name, express) => {
  let served: ExpressServed
  /** What happens in `/show` and `/say` before they answer. */
  let before: (req: Request) => Promise<void> | void

  beforeEach(async () => {
    before = () => {}
    served = await serveExpress({
      express,
      build: (app, tx) => {
        app.use(tx)
        app.use(flash())
        app.post('/say/:text', async (req, res) => {
          const count = req.flash('info', req.params.text)
          await before(req)
          // As after a form: the message is for the page that follows.
          res.redirect(`/show?${count}`)
        })
        app.get('/show', async (req, res) => {
          const shown = req.flash('info')
          await before(req)
          res.json(shown)
        })
        app.get('/session', (req, res) => void res.json(req.session))
      },
    })
  })
  afterEach(() => served.close())

  async function shown(client: Client): Promise<unknown> {
    return (await client.get('/show')).json()
  }
  function tab(of: Client): Client {
    const other = served.client()
    for (const [name, value] of of.cookies) other.cookies.set(name, value)
    return other
  }

  test('a message is kept for the next page, shown there, and gone', async () => {
    const client = served.client()
    expect((await client.post('/say/saved')).headers.location).toBe('/show?1')
    expect((await client.post('/say/twice')).headers.location).toBe('/show?2')
    expect(await shown(client)).toEqual(['saved', 'twice'])
    expect(await shown(client)).toEqual([])
    expect((await client.get('/session')).json()).toEqual({ flash: {} })
  })

  test('a request that loses its race says it once', async () => {
    before = ({ tx }) => {
      if (tx.attempt < 3) tx.conflict()
    }
    const client = served.client()
    expect((await client.post('/say/saved')).headers.location).toBe('/show?1')
    before = () => {}
    expect(await shown(client)).toEqual(['saved'])
    expect(served.tx.stats().attempts).toMatchObject({ 3: 1 })
  })

  test('a page that loses its race still shows it', async () => {
    const client = served.client()
    await client.post('/say/saved')
    before = ({ tx }) => {
      if (tx.attempt < 3) tx.conflict()
    }
    expect(await shown(client)).toEqual(['saved'])
    expect(await shown(client)).toEqual([])
  })

  test('a page that fails has not shown it; a request that fails has not said it', async () => {
    const client = served.client()
    await client.post('/say/saved')
    before = () => {
      throw new Error('the template is broken')
    }
    expect((await client.get('/show')).status).toBe(500)
    expect((await client.post('/say/more')).status).toBe(500)
    before = () => {}
    expect(await shown(client)).toEqual(['saved'])
  })

  test('two windows that load at the same time: one of them shows it', async () => {
    const client = served.client()
    await client.post('/say/saved')
    const both = new Barrier(2)
    before = () => both.arrive()
    const pages = await Promise.all([shown(client), shown(tab(client))])
    expect(pages.sort()).toEqual([[], ['saved']])
  })

  test('two requests of one session that say something at the same time: both are shown', async () => {
    const client = served.client()
    await client.post('/say/first')
    await shown(client)
    const both = new Barrier(2)
    before = () => both.arrive()
    await Promise.all([client.post('/say/one'), tab(client).post('/say/two')])
    expect(((await shown(client)) as string[]).sort()).toEqual(['one', 'two'])
  })
})
