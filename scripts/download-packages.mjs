/**
 * On Debian and its relatives: fetches packages and unpacks them under .cache/, as any user and without touching the
 * system. Every path apt would write to is redirected; apt still checks the signatures. Knows nothing of what is in them.
 */

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { withLock } from './lock.mjs'
import { Sentence, capture, runQuietly, say } from './processes.mjs'

/**
 * @param what.name of the folder under .cache, and in what is said
 * @param what.wanted packages; with what they depend on, as far as this machine lacks it
 * @param what.alone packages that are unpacked without what they depend on
 * @param what.instead what a user can do who sees it fail
 * @param fits asked whether the folder's content runs here
 * @returns the folder; undefined where there is no apt
 */
export async function downloadPackages(what, fits) {
  if (!existsSync('/usr/bin/apt-get') || !existsSync('/usr/bin/dpkg')) return undefined
  const tree = resolve('.cache', what.name)
  await withLock(what.name, async () => {
    // A checkout copied from another machine may bring a tree whose libraries do not fit this one.
    if (existsSync(tree) && (await fits(tree))) return
    rmSync(tree, { recursive: true, force: true })
    const work = `${tree}.${process.pid}`
    try {
      await fetchInto(work, what)
      renameSync(join(work, 'tree'), tree)
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  })
  return tree
}

async function fetchInto(work, { name, wanted, alone = [], instead }) {
  say(`downloading ${name} packages …`)
  const failure = `the ${name} packages cannot be downloaded: ${instead}`
  for (const folder of ['lists/partial', 'cache/archives/partial', 'debs', 'tree'])
    mkdirSync(join(work, folder), { recursive: true })
  const apt = aptIn(work)

  // A third-party source that is down makes update fail; what counts is whether the packages are found below.
  const update = await capture('/usr/bin/apt-get', [...apt, 'update'])
  const plan = await capture('/usr/bin/apt-get', [
    ...apt,
    '--simulate',
    '--no-install-recommends',
    '--no-remove',
    'install',
    ...wanted,
  ])
  // Only what this machine lacks: unpacking a second libc beside the running one would break everything.
  const packages = [...plan.output.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+)/gm)].map(
    ([, name, version]) => `${name}=${version}`,
  )
  if (plan.code !== 0 || packages.length + alone.length === 0) {
    throw new Sentence(`${update.output.trim()}\n${plan.output.trim()}\n${failure}`)
  }
  await runQuietly(
    '/bin/sh',
    [
      '-c',
      'cd "$1" && shift && exec apt-get "$@"',
      'sh',
      join(work, 'debs'),
      ...apt,
      'download',
      ...packages,
      ...alone,
    ],
    { failure },
  )
  for (const deb of readdirSync(join(work, 'debs'))) {
    await runQuietly('/usr/bin/dpkg', ['-x', join(work, 'debs', deb), join(work, 'tree')], { failure })
  }
}

/** Options for apt. A file, because only a file can clear the hooks that a system has configured for update. */
function aptIn(work) {
  const config = join(work, 'apt.conf')
  writeFileSync(
    config,
    `Dir::State::lists "${work}/lists";
Dir::Cache "${work}/cache";
Dir::Log "${work}";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`,
  )
  return ['-c', config, '-qq']
}

/**
 * Where the libraries of an unpacked tree are, for LD_LIBRARY_PATH. Some are a folder deeper, where whoever needs them looks
 * by an absolute path that is not ours (libpulse's libpulsecommon).
 */
export function libraryFolders(tree) {
  return ['usr/lib', 'lib'].flatMap(lib => {
    const folder = join(tree, lib)
    if (!existsSync(folder)) return []
    const triplets = foldersIn(folder).filter(inside => basename(inside).includes('-linux-'))
    return [...triplets, ...triplets.flatMap(foldersIn).filter(hasLibraries), folder]
  })
}

function foldersIn(folder) {
  const entries = readdirSync(folder, { withFileTypes: true })
  return entries.filter(entry => entry.isDirectory()).map(({ name }) => join(folder, name))
}

function hasLibraries(folder) {
  return readdirSync(folder).some(name => /^lib.*\.so/.test(name))
}
