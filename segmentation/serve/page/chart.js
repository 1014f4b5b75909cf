/** Line charts as inline SVG, in the style and the colours of the report; they can be drawn anew as numbers come. */

import { el, svg } from "./dom.js";
import { number } from "./words.js";

const HEIGHT = 220;
const MOST_POINTS = 36;

/** About `count` round numbers from `low` to `high`. */
export function ticks(low, high, count = 4) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

/** Ends of an axis with a little room; a single value gets room on both sides. */
function extent(values, room) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const space = room * (high - low) || Math.abs(low) * 0.1 || 0.5;
  return [low - space, high + space];
}

/** Stretches of points between the gaps. */
function stretches(points) {
  const found = [[]];
  for (const point of points) {
    if (Number.isFinite(point[1]) && point[1] !== null) found.at(-1).push(point);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((each) => each.length);
}

function summary(title, series) {
  const last = series.map(({ name, points }) => `${name} ${number(points.findLast((each) => Number.isFinite(each[1]))?.[1])}`);
  return `${title}. Last values: ${last.join(", ")}.`;
}

/**
 * Draw lines.
 * @param {string} title What is seen.
 * @param {string} xLabel Quantity of the x axis.
 * @param {{name: string, points: [number, number | null][]}[]} series Up to eight lines; `null` is a gap.
 */
export function lineChart(title, xLabel, series) {
  const all = series.flatMap(({ points }) => points.filter((each) => Number.isFinite(each[1]) && each[1] !== null));
  const caption = el("figcaption", {}, title);
  if (!all.length) return el("figure", { class: "chart" }, caption, el("p", {}, "No values yet."));
  const [x0, x1] = extent(all.map((each) => each[0]), 0.03);
  const [y0, y1] = extent(all.map((each) => each[1]), 0.06);
  const x = (value) => (100 * (value - x0)) / (x1 - x0);
  const y = (value) => HEIGHT * (1 - (value - y0) / (y1 - y0));
  const grid = ticks(y0, y1).map((value) => [
    svg("line", { class: "grid", x1: "0", x2: "100%", y1: y(value), y2: y(value) }),
    svg("text", { class: "end", x: -8, y: y(value) + 4 }, number(value)),
  ]);
  const whole = [...new Set(ticks(x0, x1, 5).map(Math.round))].filter((value) => value >= x0 && value <= x1);
  const below = whole.map((value) => svg("text", { class: "middle", x: `${x(value)}%`, y: HEIGHT + 18 }, String(value)));
  const lines = series.map(({ points }, slot) => curve(stretches(points), slot, x, y));
  const picture = svg("svg", { width: "100%", height: HEIGHT, role: "img", "aria-label": summary(title, series) }, grid, below, lines);
  const legend = el("ul", { class: "legend" }, series.map(({ name }, slot) => el("li", {}, el("span", { class: `key-line c${slot % 8}`, "aria-hidden": "true" }), name)));
  return el("figure", { class: "chart" }, caption, legend, el("div", { class: "frame" }, picture), el("p", { class: "x-label" }, xLabel));
}

/** One line in its stretched box, and its points where they are few. */
function curve(runs, slot, x, y) {
  const shape = (run) => run.map(([a, b]) => `${(10 * x(a)).toFixed(1)},${((1000 * y(b)) / HEIGHT).toFixed(1)}`).join(" ");
  const box = svg("svg", { class: `curve c${slot % 8}`, viewBox: "0 0 1000 1000", preserveAspectRatio: "none", width: "100%", height: HEIGHT },
    runs.filter((run) => run.length > 1).map((run) => svg("polyline", { points: shape(run) })));
  const few = runs.reduce((sum, run) => sum + run.length, 0) <= MOST_POINTS;
  const points = runs.flatMap((run) => (few || run.length === 1 ? run : []));
  return [box, points.map(([a, b]) => svg("circle", { class: `mark c${slot % 8}`, cx: `${x(a)}%`, cy: y(b), r: 4 }, svg("title", {}, `${number(a)}: ${number(b)}`)))];
}
