/**
 * A TCP proxy in front of the database, or of Redis, that reads along: it writes down every command, and can lose the
 * answer to one, or the command itself. Only for plain connections without compression, as mysql2 makes them by default.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { type Deferred, deferred } from './barrier.js'
import { redisCommands } from './redis-commands.js'

/**
 * `answer lost`: the server carried the command out, and the connection broke before it could say so. `answer late`: it
 * never says so, and the connection stays. `command lost`: the connection broke before the command arrived, and the
 * server noticed. `command late`: the same, but the server does not notice: the command arrives when it is let through,
 * if ever. `stuck`: the same, and the client does not notice either.
 */
export type Accident = 'answer lost' | 'answer late' | 'command lost' | 'command late' | 'stuck'

export interface Proxy {
  /** The server's URL, with this proxy in the place of the server. */
  readonly url: string
  /**
   * Texts of queries and prepared statements; `EXECUTE`, `QUIT` and so on for what has none. Of Redis the first words; of a
   * step of redisStore what it is and the key of the session.
   */
  readonly commands: readonly string[]
  /** Called with each command before it is passed on. */
  onCommand: (command: string) => void
  /**
   * The next command that matches has the accident; resolves when it had.
   * @param letThrough when a command that is late arrives all the same
   */
  accident(matches: RegExp, kind: Accident, letThrough?: Promise<void>): Promise<void>
  /** What has not happened yet never will. */
  forget(): void
  /** Nobody gets through, and whoever was is cut off, until it is called with `false`. */
  cut(isCut: boolean): void
  /** Connections that the server and a client hold through the proxy. */
  readonly connections: number
  close(): Promise<void>
}

const NAMES: Readonly<Record<number, string>> = {
  0x01: 'QUIT',
  0x02: 'USE',
  0x0e: 'PING',
  0x11: 'CHANGE USER',
  0x17: 'EXECUTE',
  0x19: 'CLOSE STATEMENT',
  0x1f: 'RESET CONNECTION',
}
const QUERY = 0x03
const PREPARE = 0x16
const HEADER_LENGTH = 4

interface Planned {
  readonly matches: RegExp
  readonly kind: Accident
  readonly letThrough: Promise<void> | undefined
  readonly happened: Deferred<void>
}

export async function openProxy(serverUrl: string): Promise<Proxy> {
  const target = new URL(serverUrl)
  const [cutter, defaultPort] = target.protocol === 'redis:' ? [redisCommands, 6379] : [mysqlCommands, 3306]
  const commands: string[] = []
  const planned: Planned[] = []
  const sockets = new Set<Socket>()
  let isCut = false

  const server = createServer(client => {
    if (isCut) return void client.destroy()
    const upstream = connect(Number(target.port || defaultPort), target.hostname)
    client.setNoDelay()
    upstream.setNoDelay()
    let muted: Planned | undefined
    let parted = false
    const end = (): void => {
      for (const socket of [client, upstream]) socket.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', end)
      socket.on('close', () => {
        sockets.delete(socket)
        if (!parted || socket === upstream) end()
      })
    }
    const commandsIn = cutter()
    const heard = (command: string): Planned | undefined => {
      commands.push(command)
      proxy.onCommand(command)
      const place = planned.findIndex(({ matches }) => matches.test(command))
      return place < 0 ? undefined : planned.splice(place, 1)[0]
    }
    const read = (chunk: Buffer): Planned | undefined =>
      commandsIn(chunk)
        .map(heard)
        .find(accident => accident !== undefined)
    client.on('data', (chunk: Buffer) => {
      if (parted) return
      const accident = read(chunk)
      if (accident?.kind === 'command lost') {
        accident.happened.resolve()
        return end()
      }
      if (accident?.kind === 'command late' || accident?.kind === 'stuck') {
        parted = true
        muted = accident
        if (accident.kind === 'command late') client.destroy()
        void accident.letThrough?.then(() => upstream.write(chunk))
        return accident.happened.resolve()
      }
      muted ??= accident
      upstream.write(chunk)
    })
    upstream.on('data', (chunk: Buffer) => {
      if (muted === undefined) return void client.write(chunk)
      muted.happened.resolve()
      if (muted.kind !== 'answer late') end()
    })
  })

  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = new URL(serverUrl)
  url.hostname = '127.0.0.1'
  url.port = String((server.address() as AddressInfo).port)

  const proxy: Proxy = {
    url: url.href,
    commands,
    onCommand: () => {},
    accident: (matches, kind, letThrough) => {
      const happened = deferred()
      planned.push({ matches, kind, letThrough, happened })
      return happened.promise
    },
    forget: () => void planned.splice(0),
    cut: now => {
      isCut = now
      if (isCut) for (const socket of sockets) socket.destroy()
    },
    get connections() {
      return sockets.size / 2
    },
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
  return proxy
}

/** Cuts a client's bytes into packets; only those with number 0 begin a command, the others belong to the log-in. */
function mysqlCommands(): (chunk: Buffer) => readonly string[] {
  let rest = Buffer.alloc(0)
  return chunk => {
    rest = Buffer.concat([rest, chunk])
    const commands: string[] = []
    while (rest.length >= HEADER_LENGTH) {
      const length = rest.readUIntLE(0, 3)
      if (rest.length < HEADER_LENGTH + length) break
      const packet = rest.subarray(HEADER_LENGTH, HEADER_LENGTH + length)
      if (rest[3] === 0) commands.push(nameOf(packet))
      rest = rest.subarray(HEADER_LENGTH + length)
    }
    return commands
  }
}

function nameOf(packet: Buffer): string {
  const [code = 0] = packet
  if (code === QUERY || code === PREPARE) return packet.subarray(1).toString()
  return NAMES[code] ?? `command ${code}`
}
