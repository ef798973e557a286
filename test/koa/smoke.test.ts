import Koa from 'koa'
import request from 'supertest'
import { sessionTx } from 'session-tx'
import { openDatabase } from '../support/database.js'

test('a request changes a session variable and a row together, 50 in parallel lose nothing', async () => {
  const db = await openDatabase({ connectionLimit: 10 })
  await db.pool.query('CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query('INSERT INTO t VALUES (1, 0)')
  const app = new Koa()
  const tx = sessionTx({ pool: db.pool })
  app.use(tx)
  app.use(async (ctx: any) => {
    ctx.session.n = (ctx.session.n ?? 0) + 1
    if (ctx.path === '/row') await ctx.tx.execute('UPDATE t SET n = n + 1 WHERE id = 1')
    ctx.body = { n: ctx.session.n, attempt: ctx.tx.attempt }
  })
  app.on('error', error => console.log(error))
  const server = app.listen(0)
  const first = await request(server).get('/')
  const cookie = first.headers['set-cookie']
  expect(first.status).toBe(200)
  const answers = await Promise.all(Array.from({ length: 50 }, () => request(server).get('/row').set('Cookie', cookie as any)))
  const codes = answers.map(a => a.status)
  console.log(codes.join(), JSON.stringify(tx.stats(), null, 1).slice(0, 1500))
  expect(codes.every(c => c === 200)).toBe(true)
  const [rows] = await db.pool.query('SELECT n FROM t')
  console.log(rows)
  server.close()
  await tx.close()
  await db.close()
})
