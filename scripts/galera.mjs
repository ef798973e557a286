/**
 * Three nodes of one Galera cluster on the loopback interface, each a private MariaDB. What Galera needs beside the server
 * (its library, rsync and the scripts that call it to copy a node) is taken from the system, else from Debian's packages
 * under .cache/galera.
 */

import { existsSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import { downloadPackages, libraryFolders } from './download-packages.mjs'
import { installed } from './find-program.mjs'
import { startMariadb } from './mariadb.mjs'
import { freePort } from './private-server.mjs'
import { Sentence, capture } from './processes.mjs'

const nodesMax = 3
const libraries = ['usr/lib/galera', 'usr/lib64/galera-4', 'usr/lib64/galera', 'usr/local/lib/galera']
const sst = 'wsrep_sst_rsync'

const packages = {
  name: 'galera',
  // What the script calls; mariadb-server, which has it, is the whole of a system's service and depends on much more.
  wanted: ['galera-4', 'rsync', 'iproute2', 'procps'],
  alone: ['mariadb-server'],
  instead: 'install mariadb-server, galera-4 and rsync',
}

/**
 * @param installation of findMariadb or downloadMariadb
 * @returns the nodes, as startMariadb: the first founded the cluster, the others have joined it
 */
export async function startGalera(installation) {
  const galera = findGalera() ?? (await downloadGalera())
  if (!galera) throw new Sentence(`no Galera found: ${packages.instead}`)
  const asRoot = process.getuid?.() === 0 ? [resolve('scripts/galera-as-root')] : []
  const env = {
    ...installation.env,
    PATH: joined(...asRoot, galera.bin, dirname(installation.installDb), process.env.PATH),
    REAL_RSYNC: galera.rsync,
    LD_LIBRARY_PATH: joined(
      installation.env.LD_LIBRARY_PATH,
      ...galera.libraryFolders,
      process.env.LD_LIBRARY_PATH,
    ),
  }
  const ports = []
  for (let node = 0; node < nodesMax; node += 1)
    ports.push({ group: await freePort(), ist: await freePort(), sst: await freePort() })
  const all = ports.map(({ group }) => `127.0.0.1:${group}`).join(',')

  const nodes = []
  for (const [index, { group, ist, sst: receive }] of ports.entries()) {
    const provider = `base_port=${group};gmcast.listen_addr=tcp://127.0.0.1:${group};ist.recv_addr=127.0.0.1:${ist}`
    const args = [
      '--wsrep-on=ON',
      `--wsrep-provider=${galera.library}`,
      `--wsrep-provider-options=${provider};gcache.size=32M`,
      `--wsrep-cluster-address=gcomm://${all}`,
      '--wsrep-cluster-name=session-tx',
      `--wsrep-node-name=node${index + 1}`,
      '--wsrep-node-address=127.0.0.1',
      '--wsrep-sst-method=rsync',
      `--wsrep-sst-receive-address=127.0.0.1:${receive}`,
      '--binlog-format=ROW',
      '--innodb-autoinc-lock-mode=2',
    ]
    const serverArgs = [...installation.serverArgs, ...args]
    const firstArgs = index === 0 ? ['--wsrep-new-cluster'] : []
    nodes.push(await startMariadb({ ...installation, env, serverArgs }, { firstArgs }))
  }
  return nodes
}

const joined = (...folders) => folders.filter(Boolean).join(delimiter)

/** One that is installed: all of it, since the parts of two versions need not fit each other. */
function findGalera() {
  const library = libraryIn('/')
  const script = installed(sst)
  const rsync = installed('rsync')
  return library && script && rsync ? { library, rsync, bin: dirname(script), libraryFolders: [] } : undefined
}

async function downloadGalera() {
  const tree = await downloadPackages(packages, folder => runs(unpackedIn(folder)))
  if (!tree) return undefined
  const unpacked = unpackedIn(tree)
  if (await runs(unpacked)) return unpacked
  throw new Sentence(`the downloaded Galera does not run here: ${packages.instead}`)
}

function unpackedIn(tree) {
  const bin = join(tree, 'usr/bin')
  // What the system has was not downloaded.
  const rsync = existsSync(join(bin, 'rsync')) ? join(bin, 'rsync') : installed('rsync')
  return { library: libraryIn(tree), rsync, bin, libraryFolders: libraryFolders(tree) }
}

async function runs({ library, rsync, bin, libraryFolders: folders }) {
  if (!library || !rsync || !existsSync(join(bin, sst))) return false
  const { code } = await capture(rsync, ['--version'], { env: { LD_LIBRARY_PATH: joined(...folders) } })
  return code === 0
}

function libraryIn(root) {
  return libraries.map(folder => join(root, folder, 'libgalera_smm.so')).find(file => existsSync(file))
}
