/** An answer as it comes over the wire. Knows no HTTP but how a request ends. */
import { connect } from 'node:net'

/**
 * The whole answer, one character for each byte; the date is taken out, which may pass a second in between.
 * @param head the request line and headers, without Host and Connection
 */
export function bytesOf(url: string, head: string): Promise<string> {
  const { port } = new URL(url)
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(Number(port), '127.0.0.1')
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('error', reject)
    socket.on('close', () =>
      resolve(
        Buffer.concat(chunks)
          .toString('latin1')
          .replace(/\r\nDate: [^\r]+/, '\r\nDate: now'),
      ),
    )
    socket.write(`${head}\r\nHost: test\r\nConnection: close\r\n\r\n`)
  })
}
