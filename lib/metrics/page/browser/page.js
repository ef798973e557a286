/**
 * The page's script, for browsers: puts parts in anew as the server sends them, draws charts, pauses, and filters without
 * a reload. Everything shown is made by the server; without this script the page reloads itself. Asks nobody else.
 */
;(() => {
  const body = document.body
  const state = document.getElementById('state')
  const pause = document.getElementById('pause')
  const form = document.getElementById('filter')
  const chartsSection = document.getElementById('charts')
  const reloadMs = 5000
  const failuresMax = 3
  let source
  let failures = 0
  let paused = false
  let reloading

  const say = text => {
    if (state.textContent !== text) state.textContent = text
  }

  function listen() {
    source?.close()
    clearTimeout(reloading)
    if (paused) return
    source = new EventSource(`${body.dataset.live}${location.search}`)
    source.onopen = () => {
      failures = 0
      say('Live')
    }
    source.addEventListener('parts', event => show(JSON.parse(event.data)))
    source.onerror = () => {
      failures += 1
      if (source.readyState !== EventSource.CLOSED && failures < failuresMax) return
      source.close()
      say('Reloads every 5 seconds')
      reloading = setTimeout(() => location.reload(), reloadMs)
    }
  }

  function show(parts) {
    for (const [name, text] of Object.entries(parts)) {
      if (name === 'charts') draw(JSON.parse(text))
      const place = document.querySelector(`[data-part="${name}"]`)
      // Who is choosing in a list keeps it.
      if (place !== null && place !== document.activeElement) place.innerHTML = text
    }
  }

  const charts = new Map()

  function draw(data) {
    const columns = {
      'chart-requests': ['committed', 'rolledBack', 'refused', 'conflicts'],
      'chart-commit': ['commitMs'],
    }
    for (const [id, names] of Object.entries(columns)) {
      const values = [data.times, ...names.map(name => data[name])]
      const chart = charts.get(id)
      if (chart === undefined) charts.set(id, newChart(document.getElementById(id), names, values))
      else chart.setData(values)
    }
  }

  const colour = name => getComputedStyle(body).getPropertyValue(name).trim()
  const looks = {
    committed: { label: 'committed', stroke: () => colour('--committed') },
    rolledBack: { label: 'rolled back', stroke: () => colour('--rolled'), dash: [6, 4] },
    refused: { label: 'refused or unknown', stroke: () => colour('--refused'), dash: [2, 3] },
    conflicts: { label: 'conflicts', stroke: () => colour('--conflicts'), width: 2 },
    commitMs: { label: 'ms', stroke: () => colour('--committed'), width: 2 },
  }

  function newChart(place, names, values) {
    // UTC, as everything on the page.
    const clockTime = (_, times) => times.map(time => new Date(time * 1000).toISOString().slice(11, 19))
    const axis = { stroke: () => colour('--faint'), grid: { stroke: () => colour('--line'), width: 1 } }
    const options = {
      width: place.clientWidth,
      height: 170,
      legend: { live: false },
      series: [{}, ...names.map(name => ({ width: 1.5, points: { size: 4 }, ...looks[name] }))],
      axes: [
        { ...axis, values: clockTime, space: 70 },
        { ...axis, size: 46 },
      ],
      scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
    }
    return new uPlot(options, values, place)
  }

  function start() {
    chartsSection.hidden = typeof uPlot === 'undefined'
    if (!chartsSection.hidden) draw(JSON.parse(chartsSection.dataset.charts))
    addEventListener('resize', () => {
      for (const [id, chart] of charts)
        chart.setSize({ width: document.getElementById(id).clientWidth, height: 170 })
    })
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const chart of charts.values()) chart.redraw()
    })
    pause.hidden = false
    pause.addEventListener('click', () => {
      paused = !paused
      pause.textContent = paused ? 'Go on' : 'Pause'
      say(paused ? 'Paused' : 'Connecting')
      listen()
    })
    form.querySelector('button').hidden = true
    const filter = () => {
      const search = `?${new URLSearchParams(new FormData(form))}`
      if (search === location.search) return
      history.replaceState(null, '', search)
      for (const tab of document.querySelectorAll('nav a')) {
        const { window: name } = Object.fromEntries(new URL(tab.href).searchParams)
        const params = new URLSearchParams(search)
        params.set('window', name)
        tab.search = params
      }
      listen()
    }
    form.addEventListener('input', filter)
    form.addEventListener('submit', event => {
      event.preventDefault()
      filter()
    })
    say('Connecting')
    listen()
  }

  start()
})()
