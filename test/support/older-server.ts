/**
 * A TCP relay in front of the database that makes it look older: a variable that the client asks for by name is not
 * there. MariaDB's variables cannot be removed, but their names can be misspelt on the way.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface OlderServer {
  /** The database's URL, with this relay in the place of the server. */
  readonly url: string
  close(): Promise<void>
}

export async function openOlderServer(databaseUrl: string, lacks: string): Promise<OlderServer> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  // Of the same length, so that the packet's header stays right.
  const misspelt = Buffer.from(`${lacks.slice(0, -1)}_`)
  const server = createServer(client => {
    const upstream = connect(Number(target.port || 3306), target.hostname)
    const pair = [client, upstream]
    for (const socket of pair) {
      socket.setNoDelay()
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        for (const one of pair) one.destroy()
      })
    }
    client.on('data', (chunk: Buffer) => {
      for (let at = chunk.indexOf(lacks); at >= 0; at = chunk.indexOf(lacks, at)) misspelt.copy(chunk, at)
      upstream.write(chunk)
    })
    upstream.on('data', (chunk: Buffer) => client.write(chunk))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String((server.address() as AddressInfo).port)
  const close = (): Promise<void> =>
    new Promise(resolve => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
  return { url: url.href, close }
}
