/**
 * A node: what stands behind one draft. It knows the committed value it began as, its working contents, and the nodes
 * of its parts. Knows nothing of proxies, of the kinds of containers, or of sessions.
 *
 * Working contents hold primitives, objects that the handler assigned (*raw* ones), and, instead of each committed part,
 * the node of that part. So a part keeps its node, and with it the reference that the handler holds, wherever it is moved
 * and whatever a savepoint puts back.
 */
import type { Settleable, Settling } from './settling.js'

/** What nodes ask of the scope that they belong to. */
export interface NodeScope {
  /** Makes the error for a write once the scope is closed; `undefined` while it is open. */
  readonly refusal: (() => Error) | undefined
  create(base: object, parent: DraftNode | undefined): DraftNode
  noteChanged(node: ContainerNode): void
  noteHandedOut(leaf: LeafNode): void
  /** What a reader gets for a raw object in a closed scope. */
  viewOf(raw: object): unknown
}

/**
 * Under this symbol a draft answers with its node. A WeakMap of all drafts would do without it, but entering it took
 * most of the time of making a draft (3.2 µs against 0.3), so only Dates and bytes, which cannot answer, are in one.
 */
export const NODE = Symbol('session-tx.node')

const LEAVES = new WeakMap<object, DraftNode>()

/** The node behind a draft of any scope. */
export function nodeOf(value: unknown): DraftNode | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (value instanceof DraftNode) return value
  return (value as { readonly [NODE]?: DraftNode })[NODE] ?? LEAVES.get(value)
}

export abstract class DraftNode implements Settleable {
  /**
   * True if this node or one below it may differ from what is committed: it was written, or a Date or bytes in it were
   * handed out. Set along the committed parents only. Wherever else a node is moved to, the container there was written,
   * and a written container looks at each of its parts.
   */
  touched = false
  #handle: object | undefined

  constructor(
    readonly scope: NodeScope,
    readonly parent: DraftNode | undefined,
    readonly base: object,
  ) {}

  /** What the handler holds: the proxy, the Map or Set, the copy of a Date or bytes. The same each time. */
  handle(): object {
    this.#handle ??= this.makeHandle()
    return this.#handle
  }

  touch(): void {
    if (this.touched) return
    this.touched = true
    this.parent?.touch()
  }

  protected abstract makeHandle(): object
  abstract isChanged(): boolean
  abstract settle(settling: Settling): object
}

/** A node with parts. `C` is the form of its contents: fields or items, a Map, a Set. */
export abstract class ContainerNode<C extends object = object> extends DraftNode {
  /** Working contents, made by the first write (of a Map or Set also by the first iteration). */
  protected contents: C | undefined
  #changed = false
  /** Nodes of parts, by their place in the committed value. Never emptied: a savepoint may bring back any of them. */
  #parts: Map<unknown, DraftNode> | undefined

  isChanged(): boolean {
    if (this.#changed) return true
    if (!this.touched || this.#parts === undefined) return false
    for (const part of this.#parts.values()) if (part.isChanged()) return true
    return false
  }

  settle(settling: Settling): object {
    return this.isChanged() ? settling.contents(this.working(), this.base) : this.base
  }

  /** A copy of the contents for a savepoint, and their raw objects. */
  save(): C {
    return this.copyContents(this.working())
  }

  abstract values(): Iterable<unknown>

  /** Puts saved contents back in place; without any, the committed ones. */
  load(saved: C | undefined): void {
    this.contents = saved
    this.#changed = saved !== undefined
  }

  protected abstract copyContents(contents: C): C
  protected abstract makeContents(): C

  /** Contents to read or iterate as a whole; making them changes nothing. */
  protected working(): C {
    this.contents ??= this.makeContents()
    return this.contents
  }

  /** Contents to write. Called once it is known that the write changes something. */
  protected written(): C {
    const contents = this.working()
    if (!this.#changed) {
      this.#changed = true
      this.touch()
      this.scope.noteChanged(this)
    }
    return contents
  }

  protected refuseIfClosed(): void {
    const { refusal } = this.scope
    if (refusal !== undefined) throw refusal()
  }

  /** Node of the committed part at a place. */
  protected part(place: unknown, base: object): DraftNode {
    this.#parts ??= new Map()
    let node = this.#parts.get(place)
    if (node === undefined) {
      node = this.scope.create(base, this)
      this.#parts.set(place, node)
    }
    return node
  }

  /** The node at a place if it was ever asked for. */
  protected knownPart(place: unknown): DraftNode | undefined {
    return this.#parts?.get(place)
  }

  /** A committed part as it is kept in contents. */
  protected partOrPrimitive(place: unknown, value: unknown): unknown {
    return typeof value === 'object' && value !== null ? this.part(place, value) : value
  }

  /** What the handler passes in, as it is kept in contents. A draft of another scope is a raw object here. */
  protected kept(value: unknown): unknown {
    const node = nodeOf(value)
    return node?.scope === this.scope ? node : value
  }

  /** What is kept in contents, as the handler sees it. */
  protected shown(kept: unknown): unknown {
    if (typeof kept !== 'object' || kept === null) return kept
    if (kept instanceof DraftNode) return kept.handle()
    return this.scope.refusal === undefined ? kept : this.scope.viewOf(kept)
  }
}

/** A Date or bytes: the handler gets a copy that cannot tell us of changes, so it is compared when it matters. */
export abstract class LeafNode extends DraftNode {
  protected override makeHandle(): object {
    this.touch()
    this.scope.noteHandedOut(this)
    const copy = this.copyBase()
    LEAVES.set(copy, this)
    return copy
  }

  settle(settling: Settling): object {
    return this.isChanged() ? settling.copy(this.handle()) : this.base
  }

  protected abstract copyBase(): object
  /** Returns a function that puts the contents of now back. */
  abstract save(): () => void
  abstract reset(): void
}

export class DateNode extends LeafNode {
  protected override copyBase(): Date {
    return new Date((this.base as Date).getTime())
  }

  isChanged(): boolean {
    return this.touched && !Object.is((this.handle() as Date).getTime(), (this.base as Date).getTime())
  }

  save(): () => void {
    const timeMs = (this.handle() as Date).getTime()
    return () => void (this.handle() as Date).setTime(timeMs)
  }

  reset(): void {
    const date = this.handle() as Date
    date.setTime((this.base as Date).getTime())
  }
}

export class BytesNode extends LeafNode {
  protected override copyBase(): Uint8Array {
    return new Uint8Array(this.base as Uint8Array)
  }

  isChanged(): boolean {
    if (!this.touched) return false
    const mine = this.handle() as Uint8Array
    const base = this.base as Uint8Array
    return mine.length !== base.length || mine.some((byte, index) => byte !== base[index])
  }

  save(): () => void {
    const saved = new Uint8Array(this.handle() as Uint8Array)
    return () => this.#put(saved)
  }

  reset(): void {
    this.#put(this.base as Uint8Array)
  }

  #put(saved: Uint8Array): void {
    const mine = this.handle() as Uint8Array
    if (mine.length === saved.length) mine.set(saved) // else its buffer was transferred away; nothing to write to
  }
}
