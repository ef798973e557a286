/**
 * Servers of the test's own, which it may kill and start again on the same data: a child process, because the
 * scripts that start servers are ES modules and mind the signals of their process.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'

export interface OwnServer {
  /** Of a database that exists, or of Redis. */
  readonly url: string
  /** As `kill -9` does. */
  kill(): Promise<void>
  /** As its administrator does; resolves when it has ended. */
  end(): Promise<void>
  /** Its data is gone; while it does not run. Redis only. */
  wipe(): Promise<void>
  /** So many bytes of what it wrote last are gone, as if it had not come to it; while it does not run. Redis only. */
  lose(bytes: number): Promise<void>
  /** On the same data and port; resolves when it greets. */
  start(): Promise<void>
  /** Ends it, with those that were started together with it, and removes the data. */
  close(): Promise<void>
}

export async function ownServer(kind: 'mariadb' | 'redis' = 'mariadb'): Promise<OwnServer> {
  const [server] = await ownServers(kind)
  if (server === undefined) throw new Error('no server was started')
  return server
}

/** The nodes of one cluster; closing one closes all. Of Redis the masters come first, then a replica of each. */
export function ownCluster(kind: 'galera' | 'redis-cluster' = 'galera'): Promise<readonly OwnServer[]> {
  return ownServers(kind)
}

async function ownServers(kind: string): Promise<readonly OwnServer[]> {
  const script = resolve(__dirname, '../../scripts/private-servers.mjs')
  const child = spawn(process.execPath, [script, kind], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const exited = once(child, 'exit')
  const said = async (what: string): Promise<string> => {
    const line = await Promise.race([once(lines, 'line'), exited.then(() => ['it ended'])])
    const text = String(line[0])
    if (!text.startsWith(what)) throw new Error(`the private ${kind} was to say '${what}' and said '${text}'`)
    return text.slice(what.length)
  }
  // One at a time: answers do not say whose they are.
  let last: Promise<unknown> = Promise.resolve()
  const ask = (order: string): Promise<void> => {
    const answered = last.then(async () => {
      const done = said('done')
      child.stdin.write(`${order}\n`)
      await done
    })
    last = answered.catch(() => {})
    return answered
  }
  const close = async (): Promise<void> => {
    child.stdin.end()
    await exited
    lines.close()
  }
  const urls = (await said('url ')).split(' ')
  return urls.map((url, number) => ({
    url,
    kill: () => ask(`kill ${number}`),
    end: () => ask(`end ${number}`),
    wipe: () => ask(`wipe ${number}`),
    lose: bytes => ask(`lose ${number} ${bytes}`),
    start: () => ask(`start ${number}`),
    close,
  }))
}
