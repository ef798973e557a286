/** Asks a MySQL-protocol server who it is, without a driver: the server speaks first and sends its version. */

import { connect } from 'node:net'

/**
 * @param address `{ host, port }` or `{ path }`
 * @returns the version, such as `10.11.6-MariaDB`
 * @throws the socket's error, or one that says what came instead of a greeting
 */
export function greet(address, withinMs) {
  return new Promise((resolve, reject) => {
    const socket = connect(address)
    let received = Buffer.alloc(0)
    const finish = (settle, value) => {
      socket.destroy()
      settle(value)
    }
    socket.setTimeout(withinMs, () => finish(reject, new Error(`silent for ${withinMs} ms`)))
    socket.once('error', error => finish(reject, error))
    socket.once('end', () => finish(reject, new Error('closed the connection')))
    socket.on('data', chunk => {
      received = Buffer.concat([received, chunk])
      // 3 bytes length, 1 byte sequence, then the protocol: 10, or 255 for an error ("too many connections").
      if (received.length < 5) return
      if (received[4] !== 10) return finish(reject, new Error('does not greet as a MySQL server'))
      const end = received.indexOf(0, 5)
      if (end !== -1) finish(resolve, received.toString('latin1', 5, end).replace(/^5\.5\.5-/, ''))
    })
  })
}
