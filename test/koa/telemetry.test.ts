/** Who watches from outside: spans of OpenTelemetry, the channels of diagnostics_channel, and the lines of DEBUG=session-tx. */
import { execFile } from 'node:child_process'
import diagnostics from 'node:diagnostics_channel'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { context, trace } from '@opentelemetry/api'
import {
  InMemorySpanExporter,
  NodeTracerProvider,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-node'
import { EVENT_NAMES, EventHub } from '../../lib/events.js'
import { lineOf } from '../../lib/metrics/debug-log.js'
import { serveTx, type TxServed } from '../support/app.js'

let served: TxServed
afterEach(() => served?.close())

const SECRET = 'hunter2'

describe('OpenTelemetry', () => {
  const exporter = new InMemorySpanExporter()
  beforeAll(() => {
    new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register()
  })
  afterAll(() => {
    trace.disable()
    context.disable()
  })
  beforeEach(() => exporter.reset())

  const named = (name: string): ReadableSpan[] =>
    exporter.getFinishedSpans().filter(span => span.name === `session-tx ${name}`)

  test('a span for the transaction, in it one for each attempt, an event for the conflict, and the handler inside', async () => {
    served = await serveTx({
      below: ctx => {
        trace.getTracer('handler').startSpan('work').end()
        ctx.session['password'] = SECRET
        if (ctx.tx.attempt === 1) ctx.tx.conflict(SECRET)
        ctx.body = 'done'
      },
    })
    expect((await served.client().post()).text).toBe('done')
    const [transaction] = named('transaction')
    const [lost, won] = named('attempt')
    expect(transaction?.attributes).toEqual({
      'session_tx.route': '(unmatched)',
      'session_tx.attempts': 2,
      'session_tx.outcome': 'committed',
    })
    expect([transaction?.status.code, lost?.status.code, won?.status.code]).toEqual([0, 2, 0])
    const inside = transaction?.spanContext().spanId
    expect([lost, won].map(span => span?.parentSpanContext?.spanId)).toEqual([inside, inside])
    expect(lost?.events.map(({ name, attributes }) => [name, attributes])).toEqual([
      [
        'session_tx.conflict',
        { 'session_tx.conflict.kind': 'requested', 'session_tx.conflict.store': 'application' },
      ],
    ])
    expect(won?.events).toEqual([])
    const work = exporter.getFinishedSpans().filter(({ name }) => name === 'work')
    expect(work.map(span => span.parentSpanContext?.spanId)).toEqual(
      [lost, won].map(span => span?.spanContext().spanId),
    )
    const all = JSON.stringify(
      exporter.getFinishedSpans().map(({ attributes, events }) => [attributes, events]),
    )
    expect(all).not.toContain(SECRET)
  })

  test('a request that may not run again is an error, with its outcome', async () => {
    served = await serveTx({ options: { retry: { retries: 0 } }, below: ctx => ctx.tx.conflict() })
    expect((await served.client().post()).status).toBe(503)
    const [transaction] = named('transaction')
    expect(transaction?.attributes).toMatchObject({
      'session_tx.outcome': 'refused',
      'session_tx.attempts': 1,
    })
    expect(transaction?.status.code).toBe(2)
  })

  test('where nothing is recorded, no attempt has a span', async () => {
    trace.disable()
    served = await serveTx({ below: ctx => (ctx.body = 'done') })
    expect((await served.client().get()).text).toBe('done')
    expect(exporter.getFinishedSpans()).toEqual([])
  })
})

describe('diagnostics_channel', () => {
  test('every event is published to the channel of its name', () => {
    const heard: string[] = []
    const hub = new EventHub()
    for (const name of EVENT_NAMES) {
      const hear = (payload: unknown): void => void heard.push(`${name} ${JSON.stringify(payload)}`)
      diagnostics.subscribe(`session-tx:${name}`, hear)
      expect(hub.hears(name)).toBe(true)
      hub.emit(name, { route: name } as never)
      diagnostics.unsubscribe(`session-tx:${name}`, hear)
    }
    expect(heard).toEqual(EVENT_NAMES.map(name => `${name} {"route":"${name}"}`))
    expect(EVENT_NAMES.some(name => hub.hears(name))).toBe(false)
  })

  test('what happens in a request arrives there', async () => {
    const routes: string[] = []
    const hear = (message: unknown): void => void routes.push((message as { route: string }).route)
    diagnostics.subscribe('session-tx:commit', hear)
    served = await serveTx({ below: ctx => (ctx.body = 'done') })
    await served.client().get()
    diagnostics.unsubscribe('session-tx:commit', hear)
    expect(routes).toEqual(['(unmatched)'])
  })
})

describe('DEBUG', () => {
  test('a line says what happened, and of an error only what it is called', () => {
    expect(
      lineOf('conflict', {
        id: 't1',
        route: '/cart',
        attempt: 1,
        conflict: { kind: 'variable', store: 'memory', variable: 'cart', baseVersion: 3, foundVersion: 4 },
        attemptMs: 1.23456,
        decision: 'rerun',
      }),
    ).toBe(
      'conflict id=t1 route=/cart attempt=1 kind=variable store=memory variable=cart baseVersion=3 foundVersion=4 attemptMs=1.23 decision=rerun',
    )
    const error = new RangeError(SECRET)
    expect(lineOf('hookFailed', { id: 't1', route: '/', hook: 'afterCommit', error })).toBe(
      'hookFailed id=t1 route=/ hook=afterCommit error=RangeError',
    )
  })

  test.each([
    ['session-tx', 1],
    ['other', 0],
  ])('DEBUG=%s prints %i lines', async (DEBUG, lines) => {
    const entry = resolve(__dirname, '../../dist/esm/index.js')
    const script = `import { sessionTx } from ${JSON.stringify(entry)}; const tx = sessionTx(); await tx.run(() => {}); await tx.close()`
    const env = { ...process.env, DEBUG, DEBUG_COLORS: 'no' }
    const { stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      env,
    })
    expect(stderr.match(/session-tx commit id=\S+ route=\(run\) attempt=1/g) ?? []).toHaveLength(lines)
  })
})
