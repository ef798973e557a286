/**
 * The error of a write inside our own START TRANSACTION READ ONLY, in our words. Knows no statement.
 */
import { SessionTxError } from '../errors.js'
import { findDatabaseError } from './errors.js'

/** 1792: the server refused the statement. */
const CANNOT_WRITE = 1792

/** @returns READ_ONLY with the server's error as cause, or the error as it is */
export function readOnlyError(error: unknown, transactionId: string): unknown {
  if (findDatabaseError(error)?.errno !== CANNOT_WRITE) return error
  const message = 'a read-only transaction cannot write to the database'
  return new SessionTxError('READ_ONLY', message, { cause: error, transactionId })
}
