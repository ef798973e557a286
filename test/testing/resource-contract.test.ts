/** The published suite for resources, run by one that an application might write: files that appear with the commit. */
import { mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TwoPhaseResource } from 'session-tx'
import { resourceContract, storeContract } from 'session-tx/testing'

/** Files that are there when the transaction has committed, and not before: written beside, renamed at commit. */
class FilesAtCommit implements TwoPhaseResource {
  readonly phases = 2
  readonly name = 'files'
  readonly #folder: string
  #wanted = new Map<string, string>()
  #work: Promise<void> = Promise.resolve()

  constructor(folder: string) {
    this.#folder = folder
  }

  put(name: string, text: string): Promise<void> {
    const write = this.#work.then(async () => {
      await writeFile(this.#beside(name), text)
      this.#wanted.set(name, text)
    })
    this.#work = write
    return write
  }

  settle(): Promise<void> {
    return this.#work
  }

  async prepare(): Promise<void> {
    const present = await readdir(this.#folder)
    const taken = [...this.#wanted.keys()].find(name => present.includes(name))
    if (taken !== undefined) throw new Error(`${taken} is there already`)
  }

  /** Nobody waits for a file of ours, so there is nobody to refuse. */
  doubt(): void {}

  async commit(): Promise<void> {
    for (const name of this.#wanted.keys()) await rename(this.#beside(name), join(this.#folder, name))
  }

  async rollback(): Promise<void> {
    await this.#work.catch(() => {})
    await this.#drop([...this.#wanted.keys()])
  }

  savepoint(): () => Promise<void> {
    const before = new Map(this.#wanted)
    return async () => {
      await this.#work.catch(() => {})
      await this.#drop([...this.#wanted.keys()].filter(name => !before.has(name)))
      this.#wanted = before
    }
  }

  async #drop(names: readonly string[]): Promise<void> {
    for (const name of names) await rm(this.#beside(name), { force: true })
  }

  #beside(name: string): string {
    return join(this.#folder, `.${name}.part`)
  }
}

resourceContract('a writer of files', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'session-tx-'))
  const files = new FilesAtCommit(folder)
  return {
    resource: files,
    work: piece => files.put(piece, piece),
    visible: async () => (await readdir(folder)).filter(name => !name.startsWith('.')),
    lose: () => writeFile(join(folder, 'a'), 'somebody else'),
    close: () => rm(folder, { recursive: true }),
  }
})

describe('without a test runner', () => {
  test.each([
    [
      'storeContract',
      () =>
        storeContract('x', () => Promise.reject(new Error('no')), {
          local: true,
          injectedClock: true,
          countsCommits: true,
          parallelClaims: true,
          findsUsers: true,
        }),
    ],
    ['resourceContract', () => resourceContract('x', () => Promise.reject(new Error('no')))],
  ])('%s says what it needs', (name, register) => {
    const { describe: kept } = globalThis
    try {
      Reflect.deleteProperty(globalThis, 'describe')
      expect(register).toThrow(
        `${name}() needs a test runner that puts \`describe\` and \`it\` on globalThis`,
      )
    } finally {
      Object.assign(globalThis, { describe: kept })
    }
  })
})
