/** How far the demo is, on stderr: a bar that moves on a terminal, plain lines elsewhere. */
const WIDTH = 30

export class Progress {
  readonly #label: string
  readonly #stream: NodeJS.WriteStream
  #lastStep = -1

  constructor(label: string, stream: NodeJS.WriteStream = process.stderr) {
    this.#label = label
    this.#stream = stream
  }

  /** @param share from 0 to 1 */
  update(share: number, requests: number): void {
    const line = `${this.#label}  ${String(requests).padStart(6)} requests`
    if (this.#stream.isTTY) {
      const full = Math.round(share * WIDTH)
      this.#stream.write(`\r\x1b[2K${'█'.repeat(full)}${'░'.repeat(WIDTH - full)}  ${line}`)
      return
    }
    // A log is not a terminal: a line per half is enough to see that it moves.
    const step = Math.floor(share * 2)
    if (step === this.#lastStep) return
    this.#lastStep = step
    this.#stream.write(`${line}\n`)
  }

  end(): void {
    if (this.#stream.isTTY) this.#stream.write('\r\x1b[2K')
  }
}
