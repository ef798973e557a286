/** A MariaDB of Debian's packages, unpacked under .cache/mariadb, and how to run it there. */

import { join } from 'node:path'
import { downloadPackages, libraryFolders } from './download-packages.mjs'
import { runs } from './find-mariadb.mjs'
import { Sentence, capture } from './processes.mjs'

const packages = {
  name: 'mariadb',
  wanted: ['mariadb-server-core', 'mariadb-client-core'],
  instead: 'install mariadb-server or set MYSQL_URL',
}

/** @returns as findMariadb; undefined where there is no apt */
export async function downloadMariadb() {
  const tree = await downloadPackages(packages, folder => runs(unpackedIn(folder)))
  if (tree === undefined) return undefined
  const unpacked = unpackedIn(tree)
  if (await runs(unpacked)) return unpacked
  const { output } = await capture(unpacked.mariadbd, ['--version'], { env: unpacked.env })
  throw new Sentence(`the downloaded MariaDB does not run here: ${output.trim()}\n${packages.instead}`)
}

/** How to run what was unpacked: the server looks for its files under /usr unless told otherwise. */
function unpackedIn(tree) {
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
    env: { LD_LIBRARY_PATH: libraryFolders(tree).join(':') },
    serverArgs: dirs,
    installArgs: [`--basedir=${usr}`, ...dirs],
  }
}
