/**
 * `node instrumented.cjs koa|express PATH`: an application that OpenTelemetry has instrumented before it was loaded, as its
 * README says; CommonJS, since that is what is patched without a loader. Prints what a request got that lost a race once.
 */
const {
  InMemorySpanExporter,
  SimpleSpanProcessor,
  NodeTracerProvider,
} = require('@opentelemetry/sdk-trace-node')
const { registerInstrumentations } = require('@opentelemetry/instrumentation')
const { KoaInstrumentation } = require('@opentelemetry/instrumentation-koa')
const { ExpressInstrumentation } = require('@opentelemetry/instrumentation-express')
const { HttpInstrumentation } = require('@opentelemetry/instrumentation-http')

const exporter = new InMemorySpanExporter()
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register()
registerInstrumentations({
  instrumentations: [new HttpInstrumentation(), new KoaInstrumentation(), new ExpressInstrumentation()],
})
// Only what is loaded from here on is instrumented.
const { createServer } = require('node:http')

const warnings = []
process.on('warning', ({ message }) => warnings.push(message))

const makers = {
  koa() {
    const Koa = require('koa')
    const Router = require('@koa/router')
    const { sessionTx } = require('session-tx')
    const tx = sessionTx()
    const router = new Router.Router()
    router.get('/buy/:item', ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      if (ctx.tx.attempt === 1) ctx.tx.conflict()
      ctx.body = { attempt: ctx.tx.attempt, visits: ctx.session.visits }
    })
    const app = new Koa()
    app.use(tx)
    app.use(router.routes())
    return { tx, listener: app.callback() }
  },
  express() {
    const express = require('express')
    const { sessionTx } = require('session-tx/express')
    const tx = sessionTx()
    const app = express()
    app.use(tx)
    app.get('/buy/:item', buy)
    const shop = express.Router()
    shop.get('/buy/:item', buy)
    app.use('/shops/:shop', shop)
    return { tx, listener: app }

    function buy(req, res) {
      req.session.visits = (req.session.visits ?? 0) + 1
      if (req.tx.attempt === 1) req.tx.conflict()
      res.json({ attempt: req.tx.attempt, visits: req.session.visits })
    }
  },
}

async function main() {
  const { tx, listener } = makers[process.argv[2]]()
  const server = createServer(listener)
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const response = await fetch(`http://127.0.0.1:${server.address().port}${process.argv[3]}`)
  const answer = { status: response.status, text: await response.text() }
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
  const { notRerunnable, requests, recent } = tx.stats()
  await tx.close()
  const spans = exporter
    .getFinishedSpans()
    .map(({ name, attributes }) => ({ name, route: attributes['http.route'] }))
  const routes = recent.map(({ route }) => route)
  process.stdout.write(JSON.stringify({ answer, notRerunnable, requests, routes, spans, warnings }))
}

void main()
