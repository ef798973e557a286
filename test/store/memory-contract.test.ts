/** memoryStore keeps the published contract. */
import { memoryStore } from 'session-tx'
import { storeContract } from 'session-tx/testing'

storeContract('memoryStore', () => memoryStore(), {
  local: true,
  injectedClock: true,
  countsCommits: true,
  parallelClaims: true,
  findsUsers: true,
})
