/** Runs once before all tests: without its servers there is nothing to test, and one sentence says what to do. */
export default function requireDatabase(): void {
  if (!process.env.MYSQL_URL) {
    throw new Error('MYSQL_URL is not set: run npm test; it starts a MariaDB')
  }
  if (!process.env.REDIS_URL) throw new Error('REDIS_URL is not set: run npm test; it starts a Redis')
}
