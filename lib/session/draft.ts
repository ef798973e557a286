/**
 * Copy-on-write working copies of committed values, all those of one attempt. What an attempt reads or writes through a
 * draft never reaches the committed value. Knows nothing of variables, versions, conflicts or stores.
 *
 * Why not a library: `mutative` revokes its proxies when it finalises (what was read cannot be rendered after COMMIT) or
 * with `current()` goes on accepting writes that nobody will commit; it hands out nested Dates and bytes of the
 * committed value itself; and a savepoint rolled back leaves the references that were taken before it pointing nowhere.
 */
import { MapNode, SetNode } from './draft-collections.js'
import {
  BytesNode,
  type ContainerNode,
  DateNode,
  type DraftNode,
  type LeafNode,
  type NodeScope,
  nodeOf,
} from './draft-node.js'
import { ObjectNode } from './draft-object.js'
import { saveRawContents } from './raw-contents.js'
import { type Settled, Settling } from './settling.js'
import { isCommitted, kindOf, sizeBytesOf } from './value.js'

export class DraftScope {
  readonly #nodes = new Nodes()

  /**
   * A copy-on-write view of a committed value; of a Date or bytes, a private copy. Parts read through it are drafts, too,
   * and the same ones each time. Each call makes a new draft: two variables may share one committed object and must
   * not share a draft, so the caller keeps the one of each variable.
   *
   * @throws TypeError for an object that did not come out of `settle`.
   */
  draft<T extends object>(committed: T): T {
    return this.#nodes.create(committed, undefined).handle() as T
  }

  /** Is it a draft of this scope (the copy of a Date or bytes included)? */
  isDraft(value: unknown): boolean {
    return nodeOf(value)?.scope === this.#nodes
  }

  /**
   * Does anything in a draft, at any depth, differ from the committed value? Changed and changed back may count as
   * changed; writing what is there already does not.
   */
  isChanged(draft: object): boolean {
    return nodeOf(draft)?.isChanged() ?? true
  }

  /**
   * The immutable value to commit. An unchanged draft gives its committed object itself; a changed one shares each
   * unchanged subtree with it; what the handler made itself is validated and copied, never frozen in place.
   * Changes nothing, can be called again.
   *
   * @throws SESSION_VALUE with the path of what cannot be stored.
   */
  settle(value: unknown, path: string): Settled {
    // The walk keeps books that a string or a number has no use for.
    const primitive = typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value))
    const settled = primitive ? value : new Settling(path, nodeOf, this.#nodes.copies).value(value)
    return { value: settled, sizeBytes: sizeBytesOf(settled) }
  }

  /**
   * Returns a function, to be called once at most, that puts contents back in place: drafts that exist now get those
   * of now, later ones their committed ones. References that the handler holds stay good. Objects of the handler itself
   * are put back, too, as found in drafts and in `raws` (those that the caller keeps, being assigned to a variable).
   *
   * Costs what was changed so far, a comparison per Date or bytes handed out, and a copy of the handler's objects.
   */
  savepoint(raws: Iterable<unknown> = []): () => void {
    const restore = this.#nodes.savepoint(raws)
    let called = false
    return () => {
      if (called) throw new TypeError('a savepoint of drafts can be rolled back only once')
      called = true
      restore()
    }
  }

  /**
   * From now on every write through any draft of this scope throws what the first `refuse` makes; reading goes on, also
   * of parts never read before. Objects that the handler assigned are from now on read as they were settled, read-only.
   * Only a Date or bytes can still be changed, in the private copy, which nothing looks at any more.
   */
  close(refuse: () => Error): void {
    this.#nodes.refusal ??= refuse
  }
}

/** The part of a scope that its nodes see. */
class Nodes implements NodeScope {
  refusal: (() => Error) | undefined
  #copies: WeakMap<object, unknown> | undefined
  #views: WeakMap<object, unknown> | undefined
  readonly #changed = new Set<ContainerNode>()
  readonly #leaves = new Set<LeafNode>()

  /** Which committed value was last made of which object of the handler. Made on demand: most attempts assign no object. */
  get copies(): WeakMap<object, unknown> {
    this.#copies ??= new WeakMap()
    return this.#copies
  }

  create(base: object, parent: DraftNode | undefined): DraftNode {
    const kind = kindOf(base)
    if (kind === 'date') return new DateNode(this, parent, base)
    if (kind === 'bytes') return new BytesNode(this, parent, base)
    if (!isCommitted(base)) throw new TypeError('only a committed value can be drafted; settle it first')
    if (kind === 'map') return new MapNode(this, parent, base)
    return kind === 'set' ? new SetNode(this, parent, base) : new ObjectNode(this, parent, base)
  }

  noteChanged(node: ContainerNode): void {
    this.#changed.add(node)
  }

  noteHandedOut(leaf: LeafNode): void {
    this.#leaves.add(leaf)
  }

  viewOf(raw: object): unknown {
    if (nodeOf(raw) !== undefined) return raw // a draft of another scope looks after itself
    this.#views ??= new WeakMap()
    const known = this.#views.get(raw)
    if (known !== undefined) return known
    const view = this.#makeView(raw)
    this.#views.set(raw, view)
    return view
  }

  #makeView(raw: object): unknown {
    try {
      const copy = this.copies.get(raw) ?? new Settling('', nodeOf, this.copies).value(raw)
      return this.create(copy as object, undefined).handle()
    } catch {
      return raw // it cannot be stored, so this attempt did not commit, and there is nothing to protect
    }
  }

  savepoint(raws: Iterable<unknown>): () => void {
    const saved = new Map<ContainerNode, object>()
    const roots: unknown[] = [...raws]
    for (const node of this.#changed) {
      saved.set(node, node.save())
      for (const value of node.values()) if (typeof value === 'object') roots.push(value)
    }
    const leaves = new Map<LeafNode, () => void>()
    for (const leaf of this.#leaves) if (leaf.isChanged()) leaves.set(leaf, leaf.save())
    const restoreRaws = saveRawContents(roots, value => nodeOf(value) !== undefined)
    return () => {
      for (const node of this.#changed) if (!saved.has(node)) node.load(undefined)
      this.#changed.clear()
      for (const [node, contents] of saved) {
        node.load(contents)
        this.#changed.add(node)
      }
      for (const leaf of this.#leaves) (leaves.get(leaf) ?? (() => leaf.reset()))()
      restoreRaws()
    }
  }
}
