/**
 * The process of one side: `node server.js <side> [database URL]`. Tells its parent its port, and its processor time or
 * its heap whenever it is asked. Ends when the parent lets go of it.
 */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FromSide, ToSide } from './side-process.js'
import { sides, type SideName } from './sides.js'

const [name = '', databaseUrl = ''] = process.argv.slice(2)
const app = await sides[name as SideName](databaseUrl)
// Express applications are listeners themselves.
const server = createServer((typeof app === 'function' ? app : app.callback()) as RequestListener)
server.keepAliveTimeout = 0 // its clients rest while the other sides have their turn

const tell = (message: FromSide): void => void process.send?.(message)

server.listen(0, '127.0.0.1', () => tell({ port: (server.address() as AddressInfo).port }))

process.on('message', (question: ToSide) => {
  if (question === 'how large a heap?') return tell({ heapBytes: process.memoryUsage().heapUsed })
  const { user, system } = process.cpuUsage()
  tell({ cpuMicros: user + system })
})
process.on('disconnect', () => process.exit())
