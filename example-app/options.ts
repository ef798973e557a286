/** What may be said after `npm run demo --` and `npm start --`. Pure: starts, opens and prints nothing. */
import { parseArgs } from 'node:util'
import { STORE_NAMES, type StoreName } from './stores.js'

const FRAMEWORKS = ['koa', 'express'] as const

export interface StartOptions {
  readonly store: StoreName
  readonly framework: (typeof FRAMEWORKS)[number]
}
export interface DemoOptions {
  readonly store: StoreName
  /** Of load, all applications together. */
  readonly seconds: number
  /** How many serve the shop. */
  readonly processes: number
}

/** What was said makes no sense; the message says all there is to say. */
export class UsageError extends Error {}

/** Of an error of that kind, as command line tools have it. */
export const USAGE_EXIT_CODE = 2

const SECONDS_MAX = 3600
/** Each is a process of Node with a share of the connections. */
const PROCESSES_MAX = 32

const STORE = { type: 'string', default: 'memory' } as const

/** @throws UsageError */
export function startOptions(args: readonly string[]): StartOptions {
  const options = { store: STORE, framework: { type: 'string', default: 'koa' } } as const
  const said = parsed(() => parseArgs({ args: [...args], options }).values)
  const framework = FRAMEWORKS.find(known => known === said.framework)
  if (framework === undefined)
    throw new UsageError(`--framework must be ${FRAMEWORKS.join(' or ')}, got '${said.framework}'`)
  return { store: storeFrom(said.store), framework }
}

/** @throws UsageError */
export function demoOptions(args: readonly string[]): DemoOptions {
  const options = {
    seconds: { type: 'string', default: '15' },
    processes: { type: 'string', default: '1' },
    store: STORE,
  } as const
  const said = parsed(() => parseArgs({ args: [...args], options }).values)
  const seconds = Number(said.seconds)
  if (!(seconds > 0 && seconds <= SECONDS_MAX))
    throw new UsageError(
      `--seconds must be a number of more than 0 and at most ${SECONDS_MAX}, got '${said.seconds}'`,
    )
  const processes = /^\d+$/.test(said.processes) ? Number(said.processes) : 0
  if (!(processes >= 1 && processes <= PROCESSES_MAX))
    throw new UsageError(
      `--processes must be a whole number from 1 to ${PROCESSES_MAX}, got '${said.processes}'`,
    )
  const store = storeFrom(said.store)
  if (processes > 1 && store === 'memory')
    throw new UsageError(
      `--processes ${processes} needs --store mysql or redis: memoryStore keeps a process's sessions to itself`,
    )
  return { seconds, processes, store }
}

/** Node's own sentences for what is unknown or incomplete are good. */
function parsed<Values>(parse: () => Values): Values {
  try {
    return parse()
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error })
  }
}

function storeFrom(name: string): StoreName {
  const found = STORE_NAMES.find(known => known === name)
  if (found === undefined) throw new UsageError(`--store must be ${STORE_NAMES.join(', ')}, got '${name}'`)
  return found
}
