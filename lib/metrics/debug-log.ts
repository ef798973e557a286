/**
 * `DEBUG=session-tx`: one line on stderr for each event, by the package `debug`, as Koa and Express do it. Names, versions
 * and times; never a value, and of an error only what it is called. Knows nothing of what the events mean.
 */
import debug from 'debug'
import { EVENT_NAMES, type EventHub, type EventName, type EventPayloads } from '../events.js'

const log = debug('session-tx')

/** Listens only if it is switched on when the middleware is made. */
export function debugLog(hub: EventHub): void {
  if (!log.enabled) return
  for (const name of EVENT_NAMES) hub.on(name, payload => log('%s', lineOf(name, payload)))
}

/** `conflict id=… route=/cart attempt=1 kind=variable …` */
export function lineOf<Name extends EventName>(name: Name, payload: EventPayloads[Name]): string {
  return [name, ...wordsOf(payload)].join(' ')
}

function wordsOf(payload: object): string[] {
  return Object.entries(payload).flatMap(([key, value]): string[] => {
    if (key === 'conflict') return wordsOf(value as object)
    if (value instanceof Error) return [`${key}=${value.name}`]
    if (Array.isArray(value)) return value.length === 0 ? [] : [`${key}=${value.join(',')}`]
    if (typeof value === 'number') return [`${key}=${Math.round(value * 100) / 100}`]
    return typeof value === 'string' || typeof value === 'boolean' ? [`${key}=${value}`] : []
  })
}
