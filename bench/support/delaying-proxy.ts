/**
 * A TCP proxy that makes the network longer: `node delaying-proxy.js <host> <port> <delay in ms>`. Answers of the server
 * wait, requests pass at once, so a round trip takes that much longer. Knows nothing of the protocol.
 *
 * Node's timers count whole milliseconds, and spinning would take a core from whoever is measured. So it sleeps in slices
 * of a tenth of a millisecond (`Atomics.wait`) while something is held, and looks at its sockets in between.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { FromSide } from './side-process.js'

const [host = '', port = '', delay = ''] = process.argv.slice(2)
const delayMs = Number(delay)
const SLICE_MS = 0.1

interface Held {
  readonly dueMs: number
  readonly to: Socket
  readonly chunk: Buffer
}

/** In order of arrival, which is the order in which they are due. */
const held: Held[] = []
const cell = new Int32Array(new SharedArrayBuffer(4))

function pass(): void {
  const nowMs = performance.now()
  let due = 0
  for (; due < held.length; due++) {
    const { dueMs, to, chunk } = held[due] as Held
    if (dueMs > nowMs) break
    to.write(chunk)
  }
  held.splice(0, due)
  const next = held[0]
  if (next === undefined) return
  Atomics.wait(cell, 0, 0, Math.min(next.dueMs - nowMs, SLICE_MS))
  setImmediate(pass)
}

function hold(to: Socket, chunk: Buffer): void {
  if (held.push({ dueMs: performance.now() + delayMs, to, chunk }) === 1) setImmediate(pass)
}

const proxy = createServer(client => {
  const server = connect(Number(port), host)
  for (const socket of [client, server]) socket.setNoDelay(true)
  client.on('data', chunk => server.write(chunk))
  server.on('data', chunk => hold(client, chunk))
  for (const [one, other] of [[client, server] as const, [server, client] as const]) {
    one.on('close', () => other.destroy())
    one.on('error', () => other.destroy())
  }
})

proxy.listen(0, '127.0.0.1', () => {
  const message: FromSide = { port: (proxy.address() as AddressInfo).port }
  process.send?.(message)
})
process.on('disconnect', () => process.exit())
