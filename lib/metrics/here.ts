/**
 * Where this file is, in the build of ES modules; `here.commonjs.ts` is the same for the other build, and takes this one's
 * name there. Knows nothing of what lies beside it.
 */
import { createRequire } from 'node:module'

/** Finds files and packages as an import in this folder would. */
export const beside: NodeJS.Require = createRequire(import.meta.url)
