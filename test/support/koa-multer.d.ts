/** What the tests use of @koa/multer. @types/koa__multer would give every context of every Koa application its two properties. */
declare module '@koa/multer' {
  import type { Middleware } from 'koa'
  import type { Options } from 'multer'

  export default function multer(options?: Options): { array(field: string): Middleware }
}
