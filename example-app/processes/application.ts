/**
 * An application in a process of its own, so that those who load it do not share its event loop; application-process.ts
 * is its parent's side. Knows nothing of what is served.
 */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Application {
  readonly listener: RequestListener
  /** What the parent is told when it asks; anything that JSON can say. */
  readonly figures: () => object
  /** After the last request: what runs is finished and the connections are given back. */
  readonly close: () => Promise<unknown>
}

/** Serves on a free port of this machine, which the parent is told, until SIGTERM or until the parent is gone. */
export function serveApplication({ listener, figures, close }: Application): void {
  const server = createServer(listener)
  // The one who connects keeps the connections: one that we close may have a request on its way.
  server.keepAliveTimeout = 0
  const tell = (message: object): void => void process.send?.(message)
  server.listen(0, '127.0.0.1', () => tell({ port: (server.address() as AddressInfo).port }))

  let ending: Promise<void> | undefined
  const end = (): Promise<void> => (ending ??= inOrder())
  /** No new requests, then those that run and their after-commit hooks, then the connections, then the parent. */
  async function inOrder(): Promise<void> {
    await new Promise(resolve => server.close(resolve))
    await close()
    if (process.connected) process.disconnect()
  }

  process.on('message', () => tell(figures()))
  process.once('SIGTERM', () => void end())
  process.once('disconnect', () => {
    server.closeAllConnections()
    void end()
  })
  // Ctrl-C reaches the whole process group; when to end is the parent's to say.
  process.on('SIGINT', () => {})
}
