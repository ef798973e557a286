/**
 * Whether a request certainly comes from this machine: who may look at metrics when nobody said who may.
 * Pure; in doubt the answer is no. Knows nothing of what is protected.
 */
import { BlockList, isIP } from 'node:net'

export type Headers = Readonly<Record<string, string | readonly string[] | undefined>>

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/**
 * All three must hold, because each closes another door:
 * - the socket's own address is 127.0.0.0/8, ::1 or ::ffff:127.x.x.x. A unix socket has none, and usually a
 *   proxy: no;
 * - no header of a proxy: behind nginx on the same machine every socket is a loopback socket;
 * - `Host` is `localhost` or a loopback address: a page of evil.example whose name was re-bound to 127.0.0.1
 *   sends its own.
 */
export function isLocalRequest(remoteAddress: string | undefined, headers: Headers): boolean {
  return (
    remoteAddress !== undefined &&
    isLoopback(remoteAddress) &&
    !wasForwarded(headers) &&
    isAddressedToLocalhost(headers)
  )
}

function isLoopback(address: string): boolean {
  const family = isIP(address)
  return family !== 0 && LOOPBACK.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

/** An empty value counts: somebody in between wrote it. */
function wasForwarded(headers: Headers): boolean {
  return Object.keys(headers).some(name => /^(?:forwarded|x-forwarded-.*|x-real-ip|via)$/i.test(name))
}

/** HTTP/2 has `:authority` in the place of `Host` and may have both: then both must be local. */
function isAddressedToLocalhost(headers: Headers): boolean {
  const named = [headers['host'], headers[':authority']].filter(value => value !== undefined)
  return named.length > 0 && named.every(value => typeof value === 'string' && isLocalHost(value))
}

function isLocalHost(host: string): boolean {
  const parts = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::\d{1,5})?$/.exec(host)
  if (parts === null) return false
  const [, ipv6, name = ''] = parts
  if (ipv6 !== undefined) return isIP(ipv6) === 6 && isLoopback(ipv6)
  return name.toLowerCase() === 'localhost' || (isIP(name) === 4 && isLoopback(name))
}
