/** The shop's database: made on the server that a URL names, and filled from SQL files. Knows nothing of handlers. */
import { readFile } from 'node:fs/promises'
import mysql, { type Pool } from 'mysql2/promise'

/** One for each request that runs at the same time: a request keeps its connection from its first SQL to the commit. */
export const CONNECTIONS_MAX = 64

const FILES = ['schema.sql', 'session-tx.sql', 'compared/koa-session.sql']

/** Makes a database with the shop's tables, unless it is there, and leaves what is in it. */
export async function createDatabase(url: string, name: string): Promise<string> {
  const texts = await Promise.all(FILES.map(file => readFile(new URL(file, import.meta.url), 'utf8')))
  const statements = texts.flatMap(text => text.split(/;\s*$/m))
  const connection = await mysql.createConnection(url)
  try {
    await connection.query('CREATE DATABASE IF NOT EXISTS ??', [name])
    await connection.query('USE ??', [name])
    for (const statement of statements.filter(text => text.trim() !== '')) await connection.query(statement)
  } finally {
    await connection.end()
  }
  return databaseUrl(url, name)
}

/** The same server, another database. */
export function databaseUrl(url: string, name: string): string {
  const other = new URL(url)
  other.pathname = `/${name}`
  return other.href
}

export async function dropDatabase(url: string, name: string): Promise<void> {
  const connection = await mysql.createConnection(url)
  try {
    await connection.query('DROP DATABASE IF EXISTS ??', [name])
  } finally {
    await connection.end()
  }
}

export function openPool(url: string, connectionsMax: number = CONNECTIONS_MAX): Pool {
  return mysql.createPool({ uri: url, connectionLimit: connectionsMax })
}
