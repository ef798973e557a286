/**
 * OpenTelemetry's instrumentations of Koa and Express, which wrap what an application is made of: session-tx finds what
 * stands below it all the same. In a process of its own, since modules are patched while they are loaded.
 */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'

interface Seen {
  readonly answer: { readonly status: number; readonly text: string }
  readonly notRerunnable: object
  readonly routes: readonly string[]
  readonly spans: readonly { readonly name: string; readonly route?: string }[]
  readonly warnings: readonly string[]
}

async function seen(framework: string, path: string): Promise<Seen> {
  const script = resolve(__dirname, 'instrumented.cjs')
  const { stdout } = await promisify(execFile)(process.execPath, [script, framework, path])
  return JSON.parse(stdout) as Seen
}

test.each(['koa', 'express'])(
  '%s: session-tx finds its place, and a request that lost runs again',
  async framework => {
    const { answer, notRerunnable, routes, warnings } = await seen(framework, '/buy/tea')
    expect([answer.status, JSON.parse(answer.text)]).toEqual([200, { attempt: 2, visits: 1 }])
    expect([notRerunnable, routes, warnings]).toEqual([{}, ['/buy/:item'], []])
  },
)

test('Koa: what stands below has a span for each attempt', async () => {
  const { spans } = await seen('koa', '/buy/tea')
  expect(spans.filter(({ name }) => name === 'router - /buy/:item')).toHaveLength(2)
  expect(spans.map(({ name }) => name)).toContain('GET /buy/:item')
})

test('Express: what stands below has a span for the attempt that was answered', async () => {
  const { spans } = await seen('express', '/buy/tea')
  expect(spans).toContainEqual({ name: 'request handler', route: '/buy/:item' })
  expect(spans.map(({ name }) => name)).toContain('GET /buy/:item')
})

test('Express: a router has its spans, and its routes are found with the whole pattern', async () => {
  const { answer, routes, spans, notRerunnable } = await seen('express', '/shops/1/buy/tea')
  expect(JSON.parse(answer.text)).toEqual({ attempt: 2, visits: 1 })
  expect([notRerunnable, routes]).toEqual([{}, ['/shops/:shop/buy/:item']])
  const route = '/shops/:shop/buy/:item'
  expect(spans).toContainEqual({ name: 'request handler', route })
  expect(spans.filter(({ name }) => name.startsWith('router - '))).toHaveLength(2)
})
