/**
 * On Debian and its relatives: fetches the MariaDB packages into .cache/mariadb and unpacks them there, as any user
 * and without touching the system. Every path apt would write to is redirected; apt still checks the signatures.
 */

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { runs } from './find-mariadb.mjs'
import { withLock } from './lock.mjs'
import { Sentence, capture, runQuietly, say } from './processes.mjs'

const tree = resolve('.cache/mariadb')
const wanted = ['mariadb-server-core', 'mariadb-client-core']

/** @returns as findMariadb; undefined where there is no apt */
export async function downloadMariadb() {
  if (!existsSync('/usr/bin/apt-get') || !existsSync('/usr/bin/dpkg')) return undefined
  await withLock('mariadb', async () => {
    // A checkout copied from another machine may bring a tree whose libraries do not fit this one.
    if (existsSync(tree) && (await runs(unpacked()))) return
    rmSync(tree, { recursive: true, force: true })
    const work = resolve(`.cache/mariadb.${process.pid}`)
    try {
      await fetchInto(work)
      renameSync(join(work, 'tree'), tree)
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
    if (!(await runs(unpacked()))) {
      const { output } = await capture(unpacked().mariadbd, ['--version'], { env: unpacked().env })
      throw new Sentence(
        `the downloaded MariaDB does not run here: ${output.trim()}\ninstall mariadb-server or set MYSQL_URL`,
      )
    }
  })
  return unpacked()
}

async function fetchInto(work) {
  say('downloading MariaDB packages …')
  const failure = 'the MariaDB packages cannot be downloaded: install mariadb-server or set MYSQL_URL'
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
  if (plan.code !== 0 || packages.length === 0) {
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

/** How to run what was unpacked: the server looks for its files under /usr unless told otherwise. */
function unpacked() {
  const usr = join(tree, 'usr')
  const share = join(usr, 'share/mysql')
  const dirs = [
    `--lc-messages-dir=${share}`,
    `--character-sets-dir=${share}/charsets`,
    `--plugin-dir=${usr}/lib/mysql/plugin`,
  ]
  return {
    mariadbd: join(usr, 'sbin/mariadbd'),
    installDb: join(usr, 'bin/mariadb-install-db'),
    env: { LD_LIBRARY_PATH: libraryFolders().join(':') },
    serverArgs: dirs,
    installArgs: [`--basedir=${usr}`, ...dirs],
  }
}

function libraryFolders() {
  return ['usr/lib', 'lib'].flatMap(lib => {
    const folder = join(tree, lib)
    if (!existsSync(folder)) return []
    const triplets = readdirSync(folder).filter(name => name.includes('-linux-'))
    return [...triplets.map(name => join(folder, name)), folder]
  })
}
