/** Who may look at the metrics, where, and what they get. */
import {
  createEndpoint,
  type EndpointRequest,
  type EndpointResponse,
  type MetricsOptions,
} from '../../lib/metrics/endpoint.js'
import { isSessionTxError } from '../../lib/errors.js'
import { Board } from '../../lib/metrics/board/board.js'
import { STREAMS_MAX } from '../../lib/metrics/page/live-streams.js'
import { FakeClock } from '../support/clock.js'
import { recording } from './events.js'
import { readExposition } from './exposition.js'

type Context = { readonly user?: string }

const local: EndpointRequest<Context> = {
  method: 'GET',
  path: '/_tx/stats.json',
  query: '',
  isServing: () => true,
  remoteAddress: '127.0.0.1',
  headers: { host: 'localhost:3000' },
  context: {},
}

function endpoint(options: MetricsOptions<Context> = {}, nodeEnv?: string) {
  return createEndpoint(options, sources(), nodeEnv)
}

/** What an endpoint looks at, and a way to make something happen in it. */
function sources() {
  const { hub, recorder, happens } = recording()
  const clock = new FakeClock()
  return { recorder, clock, board: new Board(hub, clock), happens }
}

async function status(request: Partial<EndpointRequest<Context>>, options?: MetricsOptions<Context>) {
  return (await endpoint(options)({ ...local, ...request }))?.status
}

describe('the addresses', () => {
  test('stats.json gives stats()', async () => {
    const seen = sources()
    const { recorder, happens } = seen
    happens('commit', { commitMs: 3 })
    happens('conflict')
    const answer = await createEndpoint({}, seen, undefined)(local)
    expect(answer).toMatchObject({ status: 200, type: 'application/json; charset=utf-8' })
    expect(JSON.parse(answer?.body ?? '')).toEqual(recorder.stats())
  })

  test('metrics gives Prometheus text', async () => {
    const answer = await endpoint()({ ...local, path: '/_tx/metrics' })
    expect(answer).toMatchObject({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' })
    expect(readExposition(answer?.body ?? '').size).toBeGreaterThan(10)
  })

  test.each([
    ['/_tx', '_tx/'],
    ['/_tx/', ''],
  ])('%s is a page whose files are beside it: %j', async (path, base) => {
    const answer = await endpoint()({ ...local, path })
    expect(answer).toMatchObject({ status: 200, type: 'text/html; charset=utf-8' })
    for (const name of ['page.css', 'page.js', 'uplot.css', 'uplot.js', 'stats.json', 'metrics', 'live'])
      expect(answer?.body).toContain(`"${base}${name}"`)
  })

  test('the page may load what is served here and nothing else', async () => {
    const answer = await endpoint()({ ...local, path: '/_tx' })
    expect(answer?.headers['Content-Security-Policy']).toMatch(/^default-src 'self';/)
    expect(answer?.body).not.toMatch(/https?:|\/\/|<style|style="|\son\w+=/)
  })

  test.each(['page.css', 'page.js', 'uplot.css', 'uplot.js'])('%s is served from the package', async name => {
    const answer = await endpoint()({ ...local, path: `/_tx/${name}` })
    expect(answer?.status).toBe(200)
    expect(answer?.type).toMatch(name.endsWith('css') ? /^text\/css/ : /^text\/javascript/)
    expect(answer?.body.length).toBeGreaterThan(1000)
  })

  test.each(['/', '/_t', '/_txx', '/_tx/other', '/_tx/stats.json/', '//_tx', '/_TX', '/x/_tx', ''])(
    '%j is not ours, which is said at once',
    path => {
      expect(endpoint()({ ...local, path })).toBeUndefined()
    },
  )

  test('begin where `path` says', async () => {
    const options = { path: '/ops/session-tx' }
    expect(await status({ path: '/ops/session-tx/stats.json' }, options)).toBe(200)
    expect((await endpoint(options)({ ...local, path: '/ops/session-tx' }))?.body).toContain(
      '"session-tx/metrics"',
    )
    expect(endpoint(options)(local)).toBeUndefined()
  })

  test('answer GET and HEAD, and 405 otherwise', async () => {
    expect(await status({ method: 'HEAD' })).toBe(200)
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'get']) {
      const answer = await endpoint()({ ...local, method })
      expect(answer).toMatchObject({ status: 405, headers: { Allow: 'GET, HEAD' } })
    }
  })

  test('are never stored by a cache, whatever the answer', async () => {
    const answers: (EndpointResponse | undefined)[] = [
      await endpoint()(local),
      await endpoint()({ ...local, path: '/_tx/metrics' }),
      await endpoint()({ ...local, method: 'POST' }),
      await endpoint()({ ...local, remoteAddress: '10.0.0.1' }),
    ]
    for (const answer of answers) expect(answer?.headers['Cache-Control']).toBe('no-store')
  })
})

describe('live', () => {
  const live = { ...local, path: '/_tx/live' }

  /** What has been sent so far: the parts of each event, by name. */
  function events(answer: EndpointResponse | undefined): Record<string, string>[] {
    const text = String(answer?.stream?.read() ?? '')
    return [...text.matchAll(/^data: (.*)$/gm)].map(
      ([, data]) => JSON.parse(data ?? '') as Record<string, string>,
    )
  }

  test('sends every part at first, and each second what has changed', async () => {
    const seen = sources()
    const answer = await createEndpoint({}, seen, undefined)(live)
    expect(answer).toMatchObject({ status: 200, type: 'text/event-stream; charset=utf-8' })
    const [first] = events(answer)
    expect(Object.keys(first ?? {})).toEqual(expect.arrayContaining(['figures', 'conflicts', 'charts']))
    seen.happens('unknown', { route: '/pay' })
    seen.clock.advance(1000)
    const [second] = events(answer)
    expect(second?.['doubts']).toContain('/pay')
    expect(second).not.toHaveProperty('conflicts')
    answer?.stream?.destroy()
  })

  test('no timer runs while nobody looks', async () => {
    const seen = sources()
    const answer = await createEndpoint({}, seen, undefined)(live)
    expect(seen.clock.pending).toEqual([1000])
    answer?.stream?.destroy()
    await new Promise(setImmediate)
    expect(seen.clock.pending).toEqual([])
  })

  test('ends when the server stops listening, so that looking keeps no server from closing', async () => {
    const seen = sources()
    let listening = true
    const answer = await createEndpoint({}, seen, undefined)({ ...live, isServing: () => listening })
    answer?.stream?.resume()
    const ended = new Promise(resolve => answer?.stream?.once('end', resolve))
    listening = false
    seen.clock.advance(1000)
    await ended
  })

  test(`is for ${STREAMS_MAX} pages at once; one more is told to reload`, async () => {
    const mine = endpoint()
    const all = await Promise.all(Array.from({ length: STREAMS_MAX }, async () => mine(live)))
    expect((await mine(live))?.status).toBe(503)
    all[0]?.stream?.destroy()
    await new Promise(setImmediate)
    const next = await mine(live)
    expect(next?.status).toBe(200)
    for (const answer of [...all, next]) answer?.stream?.destroy()
  })

  test('HEAD opens no stream', async () => {
    const answer = await endpoint()({ ...live, method: 'HEAD' })
    expect(answer).toMatchObject({ status: 200, type: 'text/event-stream; charset=utf-8' })
    expect(answer?.stream).toBeUndefined()
  })
})

describe('without `allow`', () => {
  test.each(['127.0.0.1', '127.8.9.10', '::1', '::ffff:127.0.0.1', '::FFFF:127.1.2.3'])(
    'a socket from %s may look',
    async remoteAddress => expect(await status({ remoteAddress })).toBe(200),
  )

  test.each([
    '10.0.0.1',
    '192.168.1.2',
    '128.0.0.1',
    '126.255.255.255',
    '0.0.0.0',
    '::',
    '::2',
    'fe80::1',
    '::ffff:10.0.0.1',
    '127.0.0.1.evil.example',
    'localhost',
    '',
    undefined,
  ])('a socket from %s may not', async remoteAddress => expect(await status({ remoteAddress })).toBe(404))

  test.each([
    'forwarded',
    'x-forwarded-for',
    'x-forwarded-host',
    'x-forwarded-proto',
    'x-forwarded-anything',
    'x-real-ip',
    'via',
    'X-Forwarded-For',
    'Via',
  ])('a request that carries %s may not, even an empty one', async name => {
    expect(await status({ headers: { ...local.headers, [name]: '127.0.0.1' } })).toBe(404)
    expect(await status({ headers: { ...local.headers, [name]: '' } })).toBe(404)
  })

  test.each([
    'localhost',
    'localhost:80',
    'LOCALHOST:3000',
    '127.0.0.1',
    '127.0.0.1:3000',
    '127.1.2.3:1',
    '[::1]',
    '[::1]:3000',
    '[::ffff:127.0.0.1]:80',
  ])('Host %s may look', async host => expect(await status({ headers: { host } })).toBe(200))

  test.each([
    'evil.example',
    'evil.example:3000',
    'localhost.evil.example',
    'localhost@evil.example',
    'evil.example#localhost',
    '127.0.0.1.evil.example',
    '10.0.0.1',
    '::1',
    '[::2]',
    '[127.0.0.1]',
    '[localhost]',
    '[::1',
    'localhost:',
    'localhost:x',
    'localhost:3000:1',
    'localhost\n',
    '',
    ' localhost',
    '127.1',
  ])('Host %j may not', async host => expect(await status({ headers: { host } })).toBe(404))

  test('a request without Host, or with two, may not', async () => {
    expect(await status({ headers: {} })).toBe(404)
    expect(await status({ headers: { host: ['localhost', 'evil.example'] } })).toBe(404)
  })

  test('HTTP/2 may look by :authority, unless Host says otherwise', async () => {
    expect(await status({ headers: { ':authority': 'localhost:3000' } })).toBe(200)
    expect(await status({ headers: { ':authority': 'evil.example' } })).toBe(404)
    expect(await status({ headers: { ':authority': 'localhost', host: 'evil.example' } })).toBe(404)
    expect(await status({ headers: { ':authority': 'evil.example', host: 'localhost' } })).toBe(404)
  })

  test('who may not look cannot tell the address from one that is not there, whatever the method', async () => {
    const refused = { ...local, remoteAddress: '10.0.0.1' }
    const answers = await Promise.all([
      endpoint()(refused),
      endpoint()({ ...refused, path: '/_tx' }),
      endpoint()({ ...refused, method: 'POST' }),
    ])
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 404, type: 'text/plain; charset=utf-8', body: 'Not Found' })
      expect(answer?.headers).not.toHaveProperty('Allow')
    }
  })
})

describe('with `allow`', () => {
  const remote = { remoteAddress: '10.0.0.1', headers: { host: 'shop.example', via: '1.1 proxy' } }

  test('it alone decides, and gets the context', async () => {
    const allow = (context: Context): boolean => context.user === 'operator'
    expect(await status({ ...remote, context: { user: 'operator' } }, { allow })).toBe(200)
    expect(await status({ ...remote, context: { user: 'guest' } }, { allow })).toBe(404)
    expect(await status({ context: {} }, { allow })).toBe(404)
  })

  test('it may answer later', async () => {
    expect(await status(remote, { allow: async () => true })).toBe(200)
    expect(await status(remote, { allow: async () => false })).toBe(404)
  })

  test('throwing means no, and is warned of once, without the message', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      const broken = endpoint({
        allow: () => {
          throw new RangeError('password is hunter2')
        },
      })
      expect((await broken(local))?.status).toBe(404)
      expect((await broken(local))?.status).toBe(404)
      expect(await status(remote, { allow: () => Promise.reject(new Error('no')) })).toBe(404)
      expect(warn.mock.calls.map(([text]) => text)).toEqual([
        'metrics({ allow }) threw RangeError; refused',
        'metrics({ allow }) threw Error; refused',
      ])
    } finally {
      warn.mockRestore()
    }
  })

  test('it is not asked about what is not ours', async () => {
    const allow = jest.fn(() => true)
    const mine = endpoint({ allow })
    expect(mine({ ...local, path: '/shop' })).toBeUndefined()
    expect(allow).not.toHaveBeenCalled()
    await mine(local)
    expect(allow).toHaveBeenCalledTimes(1)
  })
})

describe('at start-up', () => {
  const refusal = (options: unknown, nodeEnv?: string): string => {
    try {
      endpoint(options as MetricsOptions<Context>, nodeEnv)
    } catch (error) {
      if (isSessionTxError(error) && error.code === 'MISCONFIGURED') return error.message
      throw error
    }
    return 'accepted'
  }

  test('production needs `allow`', () => {
    expect(refusal({}, 'production')).toBe(
      'under NODE_ENV=production metrics() needs `allow`, a function that says who may look: metrics({ allow: ctx => … })',
    )
    expect(refusal({ allow: () => false }, 'production')).toBe('accepted')
    expect(refusal({}, 'test')).toBe('accepted')
    expect(refusal({}, undefined)).toBe('accepted')
  })

  test('an unknown option names the nearest', () => {
    expect(refusal({ alow: () => true })).toBe('unknown option `alow` of metrics(); did you mean `allow`?')
  })

  test.each(['_tx', '/', '/_tx/', '', '/a//b', '/a b', '/a?b', '/a#b', 3, null])(
    'path %j is refused',
    path => {
      expect(refusal({ path })).toMatch(/^`path` of metrics\(\) must begin with a slash/)
    },
  )

  test('bad values of `allow` and of the options are refused, undefined is the default', () => {
    expect(refusal({ allow: true })).toMatch(/^`allow` of metrics\(\) must be a function/)
    expect(refusal(null)).toMatch(/^the options of metrics\(\) must be an object/)
    expect(refusal({ path: undefined, allow: undefined })).toBe('accepted')
  })
})
