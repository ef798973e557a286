/**
 * The entry `session-tx/testing`: the contracts of this package as suites, for those who write a store or a resource
 * of their own. Nothing here is needed at run time.
 */
export {
  type ResourceFactory,
  type ResourceUnderTest,
  resourceContract,
} from './resource-contract.js'
export type { StoreCapabilities, StoreFactory, StoreUnderTest } from './store-bench.js'
export { storeContract } from './store-contract.js'
