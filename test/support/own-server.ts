/**
 * A database server of the test's own, which it may kill and start again on the same data: a child process, because the
 * scripts that start servers are ES modules and mind the signals of their process.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'

export interface OwnServer {
  /** Of a database that exists. */
  readonly url: string
  /** As `kill -9` does. */
  kill(): Promise<void>
  /** On the same data and port; resolves when it answers. */
  start(): Promise<void>
  /** Ends it and removes its data. */
  close(): Promise<void>
}

export async function ownServer(): Promise<OwnServer> {
  const script = resolve(__dirname, '../../scripts/private-mariadb.mjs')
  const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const exited = once(child, 'exit')
  const said = async (what: string): Promise<string> => {
    const line = await Promise.race([once(lines, 'line'), exited.then(() => ['it ended'])])
    const text = String(line[0])
    if (!text.startsWith(what)) throw new Error(`the private MariaDB was to say '${what}' and said '${text}'`)
    return text.slice(what.length)
  }
  const ask = async (order: string, answer: string): Promise<void> => {
    const answered = said(answer)
    child.stdin.write(`${order}\n`)
    await answered
  }
  return {
    url: await said('url '),
    kill: () => ask('kill', 'killed'),
    start: () => ask('start', 'started'),
    close: async () => {
      child.stdin.end()
      await exited
      lines.close()
    },
  }
}
