/** Reads TypeScript sources and what each one imports and exports, by swc's parser. Judges nothing. */

import { readFileSync, readdirSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import { type ModuleItem, parseSync } from '@swc/core'

/** Path (with `/`, relative to lib/) → text. */
export type Sources = ReadonlyMap<string, string>

export interface SourceFile {
  /** Statements, re-exports, `import()` and `import('…')` types; `*` among the names means all of them. */
  readonly imports: readonly { specifier: string; names: readonly string[] }[]
  readonly exported: readonly string[]
  readonly exportsStar: boolean
}

/** All .ts files below a folder, their paths relative to `base`. */
export function readSources(folder: string, base = folder): Sources {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(file =>
    file.endsWith('.ts'),
  )
  return new Map(
    files.sort().map(file => {
      const path = join(folder, file)
      return [relative(base, path).split(sep).join('/'), readFileSync(path, 'utf8')]
    }),
  )
}

const parsed = new Map<string, SourceFile>()

export function parseAll(sources: Sources): Map<string, SourceFile> {
  return new Map([...sources].map(([file, text]) => [file, parse(text)]))
}

function parse(text: string): SourceFile {
  const known = parsed.get(text)
  if (known) return known
  const { body } = parseSync(text, { syntax: 'typescript', target: 'es2022' })
  const file = {
    imports: [...body.flatMap(importsOf), ...nestedImports(body)],
    exported: body.flatMap(exportsOf),
    exportsStar: body.some(item => item.type === 'ExportAllDeclaration'),
  }
  parsed.set(text, file)
  return file
}

function importsOf(item: ModuleItem): SourceFile['imports'] {
  switch (item.type) {
    case 'ImportDeclaration':
      return [{ specifier: item.source.value, names: item.specifiers.map(importedName) }]
    case 'ExportAllDeclaration':
      return [{ specifier: item.source.value, names: ['*'] }]
    case 'ExportNamedDeclaration': {
      if (!item.source) return []
      const names = item.specifiers.map(each => (each.type === 'ExportSpecifier' ? each.orig.value : '*'))
      return [{ specifier: item.source.value, names }]
    }
    default:
      return []
  }
}

type ImportSpecifier = Extract<ModuleItem, { type: 'ImportDeclaration' }>['specifiers'][number]

function importedName(specifier: ImportSpecifier): string {
  if (specifier.type === 'ImportNamespaceSpecifier') return '*'
  if (specifier.type === 'ImportDefaultSpecifier') return 'default'
  return (specifier.imported ?? specifier.local).value
}

function exportsOf(item: ModuleItem): string[] {
  if (item.type === 'ExportDefaultDeclaration' || item.type === 'ExportDefaultExpression') return ['default']
  if (item.type === 'ExportNamedDeclaration') {
    return item.specifiers.flatMap(each =>
      each.type === 'ExportSpecifier' ? [(each.exported ?? each.orig).value] : [],
    )
  }
  if (item.type !== 'ExportDeclaration') return []
  const { declaration } = item
  switch (declaration.type) {
    case 'VariableDeclaration':
      return declaration.declarations.flatMap(({ id }) => (id.type === 'Identifier' ? [id.value] : []))
    case 'FunctionDeclaration':
    case 'ClassDeclaration':
      return [declaration.identifier.value]
    default:
      return 'id' in declaration && 'value' in declaration.id ? [declaration.id.value] : []
  }
}

/** `import('…')`, as a call or in a type, and `….resolve('…')` of a package, anywhere in the file. */
function nestedImports(node: unknown): { specifier: string; names: string[] }[] {
  if (typeof node !== 'object' || node === null) return []
  const inner = Object.values(node).flatMap(nestedImports)
  const specifier = specifierOf(node as Record<string, unknown>)
  return specifier === undefined ? inner : [...inner, { specifier, names: ['*'] }]
}

function specifierOf(node: Record<string, unknown>): string | undefined {
  if (node.type === 'TsImportType') return textOf(node.argument)
  if (node.type !== 'CallExpression') return undefined
  const { type, property } = node.callee as { type: string; property?: { value?: unknown } }
  const first = (node.arguments as { expression: { type?: string } }[])[0]?.expression
  const specifier = first?.type === 'StringLiteral' ? textOf(first) : undefined
  if (type === 'Import') return specifier
  // A file that is served, not run: only what it says of packages matters.
  const resolves = type === 'MemberExpression' && property?.value === 'resolve'
  return resolves && specifier !== undefined && /^[a-z@]/.test(specifier) ? specifier : undefined
}

function textOf(node: unknown): string | undefined {
  const value = (node as { value?: unknown } | undefined)?.value
  return typeof value === 'string' ? value : undefined
}
