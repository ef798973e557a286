/** Cuts what a client sends to Redis into commands, named for tests: `GET key`, and `stage KEY` for a step of redisStore. */

const WORDS_SHOWN = 2
/** Of the script's arguments: what to do, and the key of the session. */
const [STEP, KEY] = [0, 5]

export function redisCommands(): (chunk: Buffer) => readonly string[] {
  let rest = Buffer.alloc(0)
  return chunk => {
    rest = Buffer.concat([rest, chunk])
    const commands: string[] = []
    for (let found = commandIn(rest); found !== undefined; found = commandIn(rest)) {
      commands.push(nameOf(found.words))
      rest = rest.subarray(found.length)
    }
    return commands
  }
}

interface Found {
  readonly words: readonly string[]
  readonly length: number
}

/** `*2\r\n$3\r\nGET\r\n$1\r\nx\r\n`; undefined if it is not there as a whole. */
function commandIn(bytes: Buffer): Found | undefined {
  const count = numberAt(bytes, 0)
  if (count === undefined) return undefined
  const words: string[] = []
  let at = count.next
  while (words.length < count.value) {
    const length = numberAt(bytes, at)
    if (length === undefined || bytes.length < length.next + length.value + 2) return undefined
    words.push(bytes.toString('utf8', length.next, length.next + length.value))
    at = length.next + length.value + 2
  }
  return { words, length: at }
}

function numberAt(bytes: Buffer, at: number): { readonly value: number; readonly next: number } | undefined {
  const end = bytes.indexOf('\r\n', at)
  return end === -1 ? undefined : { value: Number(bytes.toString('latin1', at + 1, end)), next: end + 2 }
}

function nameOf(words: readonly string[]): string {
  const [command = ''] = words
  if (!/^eval(sha)?$/i.test(command)) return words.slice(0, WORDS_SHOWN).join(' ')
  const args = words.slice(3 + Number(words[2]))
  return `${args[STEP] ?? ''} ${args[KEY] ?? ''}`
}
