// Charts as SVG and tables, in the page's colours.

import { h, svg } from "./dom.js";
import { count, fixed, percent, plural } from "./format.js";

const NUMBERED = 20; // classes up to which a cell has room for its number
const UPRIGHT = 6; // classes up to which a long label has room above its column
const SHOWN = 120; // classes up to which the matrix is shown

// A rate with its interval, on a scale from `from` to 1.
export function rateBar(rate, { lower, upper }, from = 0) {
  const place = (value) => Math.max(0, (value - from) / (1 - from || 1));
  const style = { "--low": place(lower), "--high": place(upper), "--rate": place(rate) };
  const label = `${percent(rate)}, 95% interval ${percent(lower)} to ${percent(upper)}`;
  return h("span", { className: "rate", style, role: "img", "aria-label": label });
}

// series: [{ name, values, kind }]; all have the same number of values, NaN for a gap.
export function lineChart(series, { label, format = fixed, height = 110, from = null }) {
  const width = 320;
  const values = series.flatMap((each) => each.values).filter(Number.isFinite);
  const low = from ?? Math.min(...values);
  const high = Math.max(...values, low + 1e-9);
  const n = Math.max(2, ...series.map((each) => each.values.length));
  const x = (i) => (i / (n - 1)) * width;
  const y = (value) => height - 4 - ((value - low) / (high - low)) * (height - 8);
  const lines = series.map(({ values: points, kind }) => {
    const at = points.map((value, i) => [x(i + n - points.length), y(value)]).filter(([, v]) => Number.isFinite(v));
    const path = at.map((point) => point.map((value) => value.toFixed(1)).join()).join(" ");
    const ends = at.length && [at[0], at.at(-1)].map(([place]) => place.toFixed(1));
    const area =
      from === 0 && at.length
        ? svg("polygon", { class: "area", points: `${ends[0]},${height} ${path} ${ends[1]},${height}` })
        : null;
    return svg("g", {}, area, svg("polyline", { class: `line ${kind}`, points: path }));
  });
  const image = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "none" };
  const scale = values.length ? [h("span", {}, format(high)), h("span", {}, format(low))] : [];
  return h(
    "div",
    { className: "chart" },
    svg("svg", image, ...lines),
    h("div", { className: "scale", ariaHidden: true }, scale),
  );
}

export function legend(series) {
  return h(
    "p",
    { className: "legend" },
    series.map(({ name, kind }) => h("span", { className: kind }, name)),
  );
}

// Expected against observed accuracy; the gap between bar and diagonal is the calibration error of the bin.
export function reliability({ bins, expected_calibration_error: error }) {
  const size = 240;
  const most = Math.max(...bins.map((bin) => bin.count));
  const marks = bins
    .filter((bin) => bin.count)
    .map((bin) => {
      const [left, width] = [bin.lower * size + 1, (bin.upper - bin.lower) * size - 2];
      const bar = (value, name) =>
        svg("rect", { class: name, x: left, y: size * (1 - value), width, height: size * value });
      const share = svg("rect", { class: "share", x: left, y: size + 4, width, height: (26 * bin.count) / most });
      const text = `Confidence ${percent(bin.lower, 0)} to ${percent(bin.upper, 0)}: ${plural(bin.count, "image")}, mean confidence ${percent(bin.confidence)}, accuracy ${percent(bin.accuracy)}`;
      return svg("g", {}, svg("title", {}, text), bar(bin.confidence, "gap"), bar(bin.accuracy, "accuracy"), share);
    });
  const label = `Reliability diagram; expected calibration error ${percent(error)}`;
  const frame = svg("rect", { class: "frame", x: 0, y: 0, width: size, height: size });
  const diagonal = svg("line", { class: "diagonal", x1: 0, y1: size, x2: size, y2: 0 });
  return svg(
    "svg",
    { viewBox: `-1 -1 ${size + 2} ${size + 34}`, class: "reliability", role: "img", "aria-label": label },
    frame,
    ...marks,
    diagonal,
  );
}

export const canSelect = (labels) => labels.length <= SHOWN;

// An interactive heat map. onSelect gets (label, predicted) of a cell that is clicked, or null to select none.
export function confusionMatrix(labels, matrix, onSelect) {
  if (!canSelect(labels))
    return h(
      "p",
      { className: "quiet" },
      `${count(labels.length)} classes are too many to draw; the JSON export has the matrix.`,
    );
  const readout = h(
    "p",
    { className: "readout", "aria-live": "polite" },
    "Point at a cell, or move with the arrow keys.",
  );
  const cells = [];
  let selected = null;

  const cell = (row, column) => {
    const total = matrix[row].reduce((sum, value) => sum + value, 0);
    const value = matrix[row][column];
    const share = total ? value / total : 0;
    const text = `${labels[row]} predicted as ${labels[column]}: ${count(value)} of ${plural(total, "image")} (${percent(share)})`;
    const made = h(
      "td",
      { tabIndex: row || column ? -1 : 0, "aria-label": text, style: { "--share": Math.sqrt(share) } },
      value ? count(value) : "",
    );
    made.className = [row === column ? "right" : "wrong", value ? "" : "none"].join(" ");
    const read = () => (readout.textContent = text);
    made.addEventListener("pointerenter", read);
    made.addEventListener("focus", read);
    made.addEventListener("click", () => select(made, row, column));
    cells.push(made);
    return made;
  };
  const select = (node, row, column) => {
    selected?.removeAttribute("aria-selected");
    selected = selected === node ? null : node;
    selected?.setAttribute("aria-selected", "true");
    onSelect(selected && [labels[row], labels[column]]);
  };
  const move = (event) => {
    const n = labels.length;
    const at = cells.indexOf(event.target);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -n, ArrowDown: n }[event.key];
    if (["Enter", " "].includes(event.key)) event.target.click();
    else if (step === undefined) return;
    else if (Math.abs(step) > 1 || Math.floor(at / n) === Math.floor((at + step) / n)) focusCell(cells[at + step], cells[at]);
    event.preventDefault();
  };

  const head = h(
    "tr",
    {},
    h("td"),
    labels.map((label) => h("th", { scope: "col", title: label }, h("span", {}, label))),
  );
  const rows = labels.map((label, row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", title: label }, label),
      labels.map((_, column) => cell(row, column)),
    ),
  );
  const isShort = labels.every((label) => label.length < 3);
  const kind = labels.length > NUMBERED ? "dense" : isShort ? "short" : labels.length <= UPRIGHT ? "short even" : "";
  const table = h(
    "table",
    {
      className: `matrix ${kind}`,
      role: "grid",
      "aria-label": "Confusion matrix: rows are labels, columns predictions",
      onkeydown: move,
    },
    h("thead", {}, head),
    h("tbody", {}, rows),
  );
  return h("div", {}, h("div", { className: "scroll" }, table), readout);
}

function focusCell(next, before) {
  if (!next) return;
  before.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
