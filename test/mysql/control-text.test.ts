/** Which texts are about transactions, in the forms that query builders and people send. */
import { controlOf } from '../../lib/mysql/handle/control-text.js'

test.each([
  ['BEGIN;', { kind: 'begin' }],
  ['begin work', { kind: 'begin' }],
  ['START TRANSACTION', { kind: 'begin' }],
  ['start  transaction\nwith consistent snapshot , read only ;', { kind: 'begin' }],
  ['commit', { kind: 'commit' }],
  ['COMMIT WORK;;', { kind: 'commit' }],
  ['rollback', { kind: 'rollback' }],
  ['ROLLBACK WORK', { kind: 'rollback' }],
  ['SAVEPOINT trx2;', { kind: 'savepoint', name: 'trx2' }],
  ['savepoint `Über``s`', { kind: 'savepoint', name: 'über``s' }],
  ['SAVEPOINT `1-sp-1`;', { kind: 'savepoint', name: '1-sp-1' }],
  ['RELEASE SAVEPOINT typeorm_1', { kind: 'release', name: 'typeorm_1' }],
  ['ROLLBACK TO SAVEPOINT A', { kind: 'rollbackTo', name: 'a' }],
  ['rollback work to a', { kind: 'rollbackTo', name: 'a' }],
  ['SET TRANSACTION ISOLATION LEVEL READ COMMITTED;', { kind: 'level', level: 'read committed' }],
  [
    'set session transaction read only, isolation level serializable',
    { kind: 'level', level: 'serializable' },
  ],
  ['SET TRANSACTION READ WRITE', { kind: 'level', level: undefined }],
  ['/* who */ COMMIT /* trace=1 */', { kind: 'commit' }],
  ['-- who\nCOMMIT # why', { kind: 'commit' }],
])('%s', (sql, control) => {
  expect(controlOf(sql)).toEqual(control)
})

test.each([
  'SELECT 1',
  "UPDATE item SET name = 'COMMIT'",
  'COMMIT AND CHAIN',
  'ROLLBACK RELEASE',
  'BEGIN NOT ATOMIC SELECT 1; END',
  'COMMIT; DROP TABLE item',
  'SAVEPOINT a b',
  'SET autocommit = 1',
  'SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE',
  'SET TRANSACTION ISOLATION LEVEL CHAOS',
  'START SLAVE',
  'RELEASE',
  '/*! COMMIT */',
  "begin '",
  '',
])('%s is a statement like any other', sql => {
  expect(controlOf(sql)).toBeUndefined()
})

test('a text of a megabyte is told in no time', () => {
  expect(controlOf(`COMMIT${' '.repeat(1_000_000)}x`)).toBeUndefined()
  expect(controlOf(`${'/* '.repeat(500)}COMMIT`)).toBeUndefined()
})
