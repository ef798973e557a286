/** Lines over a logarithmic axis as an SVG file. Knows nothing of what is drawn. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { init } from 'echarts'

export interface Plot {
  readonly title: string
  /** Where and when it was measured. */
  readonly subtitle: string
  readonly xName: string
  readonly yName: string
  readonly lines: readonly {
    readonly name: string
    readonly points: readonly (readonly [number, number])[]
  }[]
}

const SIZE = { width: 820, height: 460 }
/** Told apart by people who see colours differently, too. Source: Okabe and Ito, Color Universal Design. */
const COLOURS = ['#0072b2', '#56b4e9', '#d55e00', '#e69f00', '#cc79a7', '#009e73', '#000000', '#999999']
const SYMBOLS = ['circle', 'emptyCircle', 'rect', 'triangle', 'diamond', 'roundRect', 'pin', 'arrow']

export function writePlot(file: string, { title, subtitle, xName, yName, lines }: Plot): void {
  const chart = init(null, null, { renderer: 'svg', ssr: true, ...SIZE })
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    color: COLOURS,
    title: { text: title, subtext: subtitle, left: 12, top: 8, textStyle: { fontSize: 15 } },
    legend: { type: 'plain', bottom: 8, left: 12, itemGap: 12, textStyle: { fontSize: 11 } },
    grid: { left: 76, right: 24, top: 72, bottom: 104 },
    xAxis: { type: 'log', logBase: 2, name: xName, nameLocation: 'middle', nameGap: 26 },
    yAxis: { type: 'value', name: yName, nameLocation: 'middle', nameGap: 54, min: 0 },
    series: lines.map(({ name, points }, index) => ({
      type: 'line',
      name,
      data: points.map(([x, y]) => [x, y]),
      symbol: SYMBOLS[index % SYMBOLS.length],
      symbolSize: 7,
    })),
  })
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${chart.renderToSVGString()}\n`)
  chart.dispose()
}
