/**
 * Names of session variables as text of a column: ASCII without quotes, backslashes or blanks, so that neither collation
 * (`'a' = 'a '`), nor case, nor character set, nor SQL mode can take one for another. Ordinary names stay as they are:
 * `cart` is `cart`; every other UTF-16 unit becomes `%` and four hexadecimal digits. Knows no SQL.
 */
import { SessionTxError } from '../errors.js'

const COLUMN_NAME_CHARACTERS_MAX = 255

const OTHER = /[^\w.:$/@-]/g
const ESCAPED = /%([0-9a-f]{4})/g

/** @throws SESSION_VALUE for a name that the column does not hold */
export function columnName(variable: string): string {
  const name = variable === '' ? '%' : variable.replace(OTHER, unit => `%${hex(unit)}`)
  if (name.length <= COLUMN_NAME_CHARACTERS_MAX) return name
  const message = `the name of a session variable takes ${name.length} characters as the MySQL store writes it`
  throw new SessionTxError('SESSION_VALUE', `${message}; ${COLUMN_NAME_CHARACTERS_MAX} are the most`)
}

export function variableOf(columnText: string): string {
  if (columnText === '%') return ''
  return columnText.replace(ESCAPED, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
}

function hex(unit: string): string {
  return unit.charCodeAt(0).toString(16).padStart(4, '0')
}
