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
  readonly spans: readonly string[]
  readonly warnings: readonly string[]
}

async function seen(framework: string): Promise<Seen> {
  const script = resolve(__dirname, 'instrumented.cjs')
  const { stdout } = await promisify(execFile)(process.execPath, [script, framework])
  return JSON.parse(stdout) as Seen
}

test.each(['koa', 'express'])(
  '%s: session-tx finds its place, and a request that lost runs again',
  async framework => {
    const { answer, notRerunnable, routes, warnings } = await seen(framework)
    expect([answer.status, JSON.parse(answer.text)]).toEqual([200, { attempt: 2, visits: 1 }])
    expect([notRerunnable, routes, warnings]).toEqual([{}, ['/buy/:item'], []])
  },
)

test('Koa: what stands below has a span for each attempt', async () => {
  const { spans } = await seen('koa')
  expect(spans.filter(name => name === 'router - /buy/:item')).toHaveLength(2)
  expect(spans).toContain('GET /buy/:item')
})
