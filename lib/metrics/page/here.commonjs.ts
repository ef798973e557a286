/** Where the files beside this one are, in the build of CommonJS modules; see `here.ts`. */
export const here: string = __filename
