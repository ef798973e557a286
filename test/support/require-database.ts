/** Runs once before all tests: without a database there is nothing to test, and one sentence says what to do. */
export default function requireDatabase(): void {
  if (!process.env.MYSQL_URL) {
    throw new Error('MYSQL_URL is not set: run npm test; it starts a MariaDB')
  }
}
