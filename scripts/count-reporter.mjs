/** A jest reporter that only writes the totals to the file COUNT_FILE names; scripts/test.mjs prints them last. */

import { writeFileSync } from 'node:fs'

export default class CountReporter {
  onRunComplete(_contexts, results) {
    const file = process.env.COUNT_FILE
    if (!file) return
    // A file that could not even be loaded, or that left handles open, has no failed test of its own but is a failure.
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites
    writeFileSync(file, JSON.stringify({ passed: results.numPassedTests, failed }))
  }
}
