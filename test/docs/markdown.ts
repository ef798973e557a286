/**
 * Reads our Markdown: pages, fenced blocks, tables, links and headings. Knows only the forms that the pages use, and
 * nothing of what they say.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'

export const root = resolve(__dirname, '../..')

export interface Page {
  /** Relative to the root, as in `docs/options.md`. */
  readonly name: string
  readonly text: string
}

export interface Block {
  readonly page: string
  /** Of the block's first line of contents, counted from 1. */
  readonly line: number
  /** `ts`, `http` …; what follows it in the opening fence are marks. */
  readonly language: string
  readonly marks: readonly string[]
  readonly code: string
}

export function readPage(name: string): Page {
  return { name, text: readFileSync(resolve(root, name), 'utf8') }
}

/** Every page for readers: those beside README.md, and docs/. */
export function allPages(): readonly Page[] {
  const beside = readdirSync(root).filter(file => file.endsWith('.md'))
  const manual = readdirSync(resolve(root, 'docs')).filter(file => file.endsWith('.md'))
  return [...beside, ...manual.map(file => `docs/${file}`)].sort().map(readPage)
}

/** Fences are not indented. */
export function blocksOf({ name, text }: Page): Block[] {
  const blocks: Block[] = []
  const fenced = /^```(\S*)([^\n]*)\n([\s\S]*?)^```$/gm
  for (const { index, 1: language = '', 2: marks = '', 3: code = '' } of text.matchAll(fenced)) {
    const line = text.slice(0, index).split('\n').length + 1
    blocks.push({ page: name, line, language, marks: marks.split(/\s+/).filter(Boolean), code })
  }
  return blocks
}

export function proseOf({ text }: Page): string {
  return text.replace(/^```[\s\S]*?^```$/gm, '').replace(/`[^`\n]+`/g, '')
}

/** The rows of the tables below a heading, up to the next heading of any level; the header row is left out. */
export function rowsUnder({ name, text }: Page, heading: string): (readonly string[])[] {
  const lines = text.split('\n')
  const start = lines.findIndex(line => /^#+ /.test(line) && line.replace(/^#+ /, '') === heading)
  if (start < 0) throw new Error(`${name} has no heading '${heading}'`)
  const rest = lines.slice(start + 1)
  const end = rest.findIndex(line => /^#+ /.test(line))
  return rowsOf(end < 0 ? rest : rest.slice(0, end))
}

/** All table rows of these lines: what follows a line of dashes. */
function rowsOf(lines: readonly string[]): (readonly string[])[] {
  const rows: (readonly string[])[] = []
  let inside = false
  for (const line of lines) {
    if (!line.startsWith('|')) inside = false
    else if (/^[|\s:-]+$/.test(line)) inside = true
    else if (inside) rows.push(cellsOf(line))
  }
  return rows
}

function cellsOf(line: string): string[] {
  const cells = line.split(/(?<!\\)\|/).map(cell => cell.trim().replaceAll('\\|', '|'))
  return cells.slice(1, -1)
}

/** What stands between backticks in a text. */
export function codesIn(text: string): string[] {
  return [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)
}

/** Where links lead that leave no site: everything but `https:` and the like. */
export function localLinksOf(page: Page): string[] {
  const links = [...page.text.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/\]\(([^)\s]+)\)/g)].map(
    ([, to = '']) => to,
  )
  return links.filter(to => !/^[a-z]+:/.test(to))
}

/** Why a link leads nowhere; undefined if it leads somewhere. */
export function brokenLink(page: Page, link: string): string | undefined {
  const [path = '', anchor] = link.split('#')
  const target = path === '' ? resolve(root, page.name) : resolve(root, page.name, '..', path)
  if (!existsSync(target)) return `${page.name}: ${link} is no file`
  if (anchor === undefined || slugsIn(readFileSync(target, 'utf8')).includes(anchor)) return undefined
  return `${page.name}: ${link} is no heading`
}

/** As GitHub makes them. */
function slugsIn(text: string): string[] {
  const headings = [...text.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)].map(
    ([, heading = '']) => heading,
  )
  return headings.map(heading =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  )
}
