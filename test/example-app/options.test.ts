/** What may be said after `npm run demo --` and `npm start --`, and the sentence for everything else. Pure. */
import { demoOptions, startOptions, UsageError } from '../../example-app/options.js'

test('nothing said: 15 seconds, one process, sessions in memory', () => {
  expect(demoOptions([])).toEqual({ seconds: 15, processes: 1, store: 'memory' })
  expect(startOptions([])).toEqual({ store: 'memory', framework: 'koa' })
})

test('everything said', () => {
  const args = ['--processes', '4', '--store', 'mysql', '--seconds', '2.5']
  expect(demoOptions(args)).toEqual({ seconds: 2.5, processes: 4, store: 'mysql' })
  expect(demoOptions(['--store=mysql'])).toEqual({ seconds: 15, processes: 1, store: 'mysql' })
  expect(startOptions(['--store', 'mysql', '--framework', 'express'])).toEqual({
    store: 'mysql',
    framework: 'express',
  })
})

const seconds = '--seconds must be a number of more than 0 and at most 3600, got '
const processes = '--processes must be a whole number from 1 to 32, got '
const shared = "--processes 4 needs --store mysql or redis: memoryStore keeps a process's sessions to itself"

test.each([
  [['--seconds', 'soon'], `${seconds}'soon'`],
  [['--seconds', '0'], `${seconds}'0'`],
  [['--seconds', '-1'], /--seconds/],
  [['--seconds=-1'], `${seconds}'-1'`],
  [['--seconds', '3601'], `${seconds}'3601'`],
  [['--seconds', ''], `${seconds}''`],
  [['--seconds', 'Infinity'], `${seconds}'Infinity'`],
  [['--processes', '0', '--store', 'mysql'], `${processes}'0'`],
  [['--processes', '1.5', '--store', 'mysql'], `${processes}'1.5'`],
  [['--processes', '33', '--store', 'mysql'], `${processes}'33'`],
  [['--processes', 'four', '--store', 'mysql'], `${processes}'four'`],
  [['--processes', '', '--store', 'mysql'], `${processes}''`],
  [['--processes', '0x2', '--store', 'mysql'], `${processes}'0x2'`],
  [['--processes', '4'], shared],
  [['--processes', '4', '--store', 'memory'], shared],
  [['--store', 'mongo'], "--store must be memory, mysql, redis, got 'mongo'"],
  [['--store', 'toString'], "--store must be memory, mysql, redis, got 'toString'"],
  [['--store'], /--store/],
  [['--proceses', '4'], /--proceses/],
  [['4'], /'4'/],
] as const)('npm run demo -- %j is refused', (args, sentence) => {
  expect(() => demoOptions(args)).toThrow(UsageError)
  expect(() => demoOptions(args)).toThrow(sentence)
})

test('npm start has no other options than --store and --framework', () => {
  for (const args of [
    ['--processes', '4'],
    ['--seconds', '1'],
    ['--store', 'mongo'],
    ['--framework', 'hapi'],
    ['3000'],
  ])
    expect(() => startOptions(args)).toThrow(UsageError)
})
