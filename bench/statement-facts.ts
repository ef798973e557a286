/**
 * What it costs to find out from a statement's text what the guard must know: microseconds of a text that is new, of one
 * that is known, and of long ones, without a server.
 */
import { performance } from 'node:perf_hooks'
import type { Dialect } from '../lib/mysql/statement/lexer.js'
import { statementFacts } from '../lib/mysql/statement/facts.js'
import { median, print, printHeading, printTable, verdict } from './support/report.js'

const DIALECT: Dialect = { mariadb: true, version: 101_119, ansiQuotes: false, backslashEscapes: true }
const ROUNDS = 15
const TURNS = 20_000
const MICROS_MAX = 20

const TYPICAL = [
  'UPDATE stock SET n = n - ?, changed_at = NOW() WHERE id = ? AND n >= ?',
  'SELECT id, name, price, stock FROM product WHERE category_id = ? AND price BETWEEN ? AND ? ORDER BY name LIMIT 20',
  'INSERT INTO orders (customer_id, total, currency, note, created_at) VALUES (?, ?, ?, ?, NOW()) ' +
    'ON DUPLICATE KEY UPDATE total = VALUES(total), note = VALUES(note)',
  'SELECT o.id, o.total, c.name, c.email, SUM(i.qty * i.price) AS amount FROM orders o ' +
    'JOIN customer c ON c.id = o.customer_id LEFT JOIN order_item i ON i.order_id = o.id ' +
    "WHERE o.created_at > '2026-01-01' AND c.country IN (?, ?, ?) GROUP BY o.id HAVING amount > ? ORDER BY amount DESC LIMIT 50",
]

let turn = 0
/** Never the same text twice. */
const fresh = (sql: string): string => `${sql} -- ${++turn}`

function micros(texts: readonly string[], sql: (text: string) => string, turns = TURNS): number {
  const startMs = performance.now()
  for (let at = 0; at < turns; at++) statementFacts(sql(texts[at % texts.length] ?? ''), DIALECT)
  return ((performance.now() - startMs) * 1000) / turns
}

/** The text's own making is no part of it. */
function making(texts: readonly string[]): number {
  let length = 0
  const startMs = performance.now()
  for (let at = 0; at < TURNS; at++) length += fresh(texts[at % texts.length] ?? '').length
  return ((performance.now() - startMs) * 1000) / Math.max(TURNS, Math.min(length, TURNS))
}

const rounds = (one: () => number): number => {
  one()
  return median(Array.from({ length: ROUNDS }, one))
}

const known = rounds(() => micros(TYPICAL, text => text))
const rows = TYPICAL.map(text => {
  const cost = rounds(() => micros([text], fresh)) - rounds(() => making([text]))
  return { name: `new, ${text.length} characters`, cost }
})
const literal = `INSERT INTO t VALUES ('${"it''s \\' ".repeat(116_000)}')`
const values = `INSERT INTO t (a, b) VALUES ${"(12345, 'abc'), ".repeat(65_000)}(1, 'a')`
const open = `SELECT '${"\\'".repeat(500_000)}`

printHeading('statement facts')
printTable([
  ['text', 'µs'],
  ['known', known.toFixed(2)],
  ...rows.map(({ name, cost }) => [name, cost.toFixed(2)]),
])
const millis = (text: string): string => `${(rounds(() => micros([text], fresh, 1)) / 1000).toFixed(1)} ms`
printTable([
  ['a megabyte', 'in all'],
  ['one literal', millis(literal)],
  ['65 000 rows of values', millis(values)],
  ['a quote that is never closed', millis(open)],
])
const worst = Math.max(...rows.map(({ cost }) => cost))
print(`µs of the costliest new text: ${verdict(worst, { atMost: MICROS_MAX })}`)
