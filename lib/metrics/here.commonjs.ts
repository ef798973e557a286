/** Where this file is, in the build of CommonJS modules; see `here.ts`. */
import { createRequire } from 'node:module'

export const beside: NodeJS.Require = createRequire(__filename)
