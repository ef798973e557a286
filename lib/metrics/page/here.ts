/**
 * Where the files beside this one are, in the build of ES modules; `here.commonjs.ts` is the same for the other build,
 * and takes this one's name there. Knows nothing of what lies there.
 */
export const here: string = import.meta.url
