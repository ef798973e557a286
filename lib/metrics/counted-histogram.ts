/**
 * A Prometheus histogram made of counts that exist already. Knows how prom-client's registry reads a metric,
 * and nothing of what was counted.
 */

/** Counts of a histogram whose bucket `i` holds what was at most `bounds[i]` and above the bound before. */
export interface Buckets {
  readonly bounds: readonly number[]
  /** One longer than `bounds`: the last counts what was above all of them. Not cumulative. */
  readonly counts: readonly number[]
  readonly sum: number
}

/**
 * A histogram whose counts exist already. prom-client's own can only observe one value after the other, which
 * would put it on the path of every request; a registry, though, asks a metric for nothing but `name`,
 * `get()` and `reset()`.
 */
export class CountedHistogram {
  readonly name: string
  readonly #help: string
  readonly #buckets: () => Buckets

  constructor(name: string, help: string, buckets: () => Buckets) {
    this.name = name
    this.#help = help
    this.#buckets = buckets
  }

  get(): Promise<unknown> {
    const { bounds, counts, sum } = this.#buckets()
    let total = 0
    const values = counts.map((count, index) => {
      total += count
      return {
        metricName: `${this.name}_bucket`,
        labels: { le: String(bounds[index] ?? '+Inf') },
        value: total,
      }
    })
    return Promise.resolve({
      name: this.name,
      help: this.#help,
      type: 'histogram',
      aggregator: 'sum',
      values: [
        ...values,
        { metricName: `${this.name}_sum`, labels: {}, value: sum },
        { metricName: `${this.name}_count`, labels: {}, value: total },
      ],
    })
  }

  /** The counts belong to the recorder; there is nothing here to forget. */
  reset(): void {}
}
