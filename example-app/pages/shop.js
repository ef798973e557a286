/** Races that a person can start: two tabs at once, and a storm. Everything else on the page is plain forms. */
;(() => {
  const told = document.getElementById('told')
  const tell = text => {
    const line = document.createElement('li')
    line.textContent = text
    told.append(line)
  }

  /** A request as a tab of this session would send it. */
  async function send(method, address, body) {
    const answer = await fetch(address, {
      method,
      headers: { accept: 'application/json', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    await answer.text()
    return { status: answer.status, attempts: Number(answer.headers.get('x-attempts') ?? 1) }
  }

  /** Both read the cart, ponder, and write it: the second one to commit has lost and runs again. */
  async function race() {
    const both = await Promise.all(
      ['tea', 'cake'].map(item => send('POST', '/cart', { item, ponderMs: 300 })),
    )
    both.forEach(({ status, attempts }, tab) =>
      tell(`Tab ${tab + 1}: ${status}, ${attempts === 1 ? 'ran once' : `ran ${attempts} times`}`),
    )
    tell('Both lines are in the cart: load the page again.')
  }

  async function storm() {
    const counts = { answered: 0, again: 0, refused: 0 }
    const shopper = async () => {
      for (let round = 0; round < 10; round++) {
        const item = ['tea', 'coffee', 'cake', 'bread'][Math.floor(Math.random() * 4)]
        for (const [method, address, body] of [
          ['POST', '/cart', { item, ponderMs: 20 }],
          ['POST', '/checkout'],
        ]) {
          const { status, attempts } = await send(method, address, body)
          counts.answered += 1
          if (attempts > 1) counts.again += 1
          if (status === 503) counts.refused += 1
        }
      }
    }
    await Promise.all(Array.from({ length: 8 }, shopper))
    tell(`Storm: ${counts.answered} answers, ${counts.again} after a re-run, ${counts.refused} refused`)
  }

  for (const [id, start] of Object.entries({ race, storm }))
    document.getElementById(id).addEventListener('click', () => void start())
})()
