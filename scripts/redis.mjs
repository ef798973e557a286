/**
 * A private Redis, set up as redisStore wants it, or several that are a cluster. Its life is private-server.mjs. Speaks as
 * much of Redis's protocol as is needed to know that it answers, and to tell nodes of a cluster of each other.
 */

import { readdirSync, rmSync, statSync, truncateSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startServer } from './private-server.mjs'
import { Sentence, say, throwIfStopped } from './processes.mjs'

/**
 * @param installation of findRedis
 * @param options.args for the server, beside ours
 * @returns as startServer, with its `url`; wipe(), its data is gone, and lose(bytes), the last of what it wrote is: to be
 * called while it does not run
 */
export async function startRedis({ server, env }, { args = [] } = {}) {
  const started = await startServer({
    name: 'Redis',
    prefix: 'session-tx-redis-',
    command: (folder, port) => ({ command: server, args: [...argsOf(folder, port), ...args], env }),
    greet: (_folder, port, withinMs) => versionOf(port, withinMs),
  })
  const { folder, port, greeting } = started
  say(`Redis ${greeting} on port ${port}`)
  const data = join(folder, 'appendonlydir')
  const wipe = () => rmSync(data, { recursive: true, force: true })
  const lose = bytes => {
    // As long as it is not rewritten there is one.
    const written = join(
      data,
      readdirSync(data).find(name => name.endsWith('.incr.aof')),
    )
    truncateSync(written, Math.max(statSync(written).size - bytes, 0))
  }
  return { ...started, url: `redis://127.0.0.1:${port}`, wipe, lose }
}

const argsOf = (folder, port) => [
  ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--daemonize', 'no'],
  ...['--save', '', '--appendonly', 'yes', '--maxmemory-policy', 'noeviction'],
]

async function versionOf(port, withinMs) {
  const [info] = await ask(port, [['INFO', 'server']], withinMs)
  return /redis_version:(\S+)/.exec(info)?.[1]
}

/**
 * Sends commands to a server on this machine; resolves to its answers as text, simple strings without their first sign.
 * @throws the socket's error, or what the server says instead
 */
export function ask(port, commands, withinMs) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port })
    let received = ''
    const finish = (settle, value) => {
      socket.destroy()
      settle(value)
    }
    socket.setTimeout(withinMs, () => finish(reject, new Error(`silent for ${withinMs} ms`)))
    socket.once('error', error => finish(reject, error))
    socket.once('end', () => finish(reject, new Error('closed the connection')))
    socket.setEncoding('latin1').on('data', chunk => {
      received += chunk
      const answers = answersIn(received)
      const failure = answers.find(answer => answer.startsWith('-'))
      if (failure) finish(reject, new Error(failure.slice(1)))
      else if (answers.length === commands.length) finish(resolve, answers)
    })
    const bulk = text => `$${Buffer.byteLength(text)}\r\n${text}\r\n`
    for (const words of commands) socket.write(`*${words.length}\r\n${words.map(bulk).join('')}`)
  })
}

function answersIn(received) {
  const answers = []
  for (let at = 0; ; ) {
    const end = received.indexOf('\r\n', at)
    if (end === -1) return answers
    const line = received.slice(at, end)
    at = end + 2
    if (!line.startsWith('$')) {
      answers.push(line.startsWith('-') ? line : line.slice(1))
      continue
    }
    const length = Number(line.slice(1))
    if (received.length < at + length + 2) return answers
    answers.push(received.slice(at, at + length))
    at += length + 2
  }
}

const mastersCount = 3
const slotsCount = 16_384
const joinMsMax = 30_000

/** A cluster of three masters, each with one replica. @returns the nodes, as startRedis: masters first */
export async function startRedisCluster(installation) {
  const args = [
    ...['--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf', '--cluster-node-timeout', '2000'],
    // A shard whose master is away answers for itself; the others go on.
    ...['--cluster-require-full-coverage', 'no'],
  ]
  const nodes = []
  for (let node = 0; node < 2 * mastersCount; node += 1) nodes.push(await startRedis(installation, { args }))
  const ids = []
  for (const { port } of nodes) ids.push((await ask(port, [['CLUSTER', 'MYID']], 1_000))[0])

  const perMaster = Math.ceil(slotsCount / mastersCount)
  for (const [index, { port }] of nodes.entries()) {
    const commands = [['CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1)]]
    const [from, to] = [index * perMaster, Math.min((index + 1) * perMaster, slotsCount) - 1]
    if (index < mastersCount) {
      const slots = Array.from({ length: to - from + 1 }, (_, slot) => String(from + slot))
      commands.push(['CLUSTER', 'ADDSLOTS', ...slots])
    }
    for (const other of nodes.slice(0, index))
      commands.push(['CLUSTER', 'MEET', '127.0.0.1', String(other.port)])
    await ask(port, commands, 5_000)
  }
  await until(nodes, ({ text }) => text.includes(`cluster_known_nodes:${nodes.length}`))
  for (const [index, { port }] of nodes.slice(mastersCount).entries()) await asReplica(port, ids[index])
  await until(nodes, ({ text }) => text.includes('cluster_state:ok'))
  await until(nodes.slice(mastersCount), ({ replication }) => replication.includes('master_link_status:up'))
  return nodes
}

/** A node may not have heard of that master yet. */
async function asReplica(port, master) {
  const deadline = Date.now() + joinMsMax
  for (;;) {
    try {
      return await ask(port, [['CLUSTER', 'REPLICATE', master]], 1_000)
    } catch (error) {
      if (Date.now() > deadline) throw error
      await sleep(100)
    }
  }
}

async function until(nodes, holds) {
  const deadline = Date.now() + joinMsMax
  for (const { port } of nodes) {
    for (;;) {
      throwIfStopped()
      const commands = [
        ['CLUSTER', 'INFO'],
        ['INFO', 'replication'],
      ]
      const [text, replication] = await ask(port, commands, 1_000)
      if (holds({ text, replication })) break
      if (Date.now() > deadline) throw new Sentence('the nodes of the Redis Cluster do not find each other')
      await sleep(50)
    }
  }
}
