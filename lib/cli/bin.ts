#!/usr/bin/env node
/** The program that `npx session-tx` starts: hands its arguments on and ends with the exit code. */
import { sessionTxCommand } from './session-tx.js'

void sessionTxCommand(process.argv.slice(2), {
  say: line => void process.stdout.write(`${line}\n`),
  complain: line => void process.stderr.write(`${line}\n`),
}).then(code => {
  process.exitCode = code
})
