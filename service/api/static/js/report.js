// The report of an evaluation: metrics with intervals, confusion matrix, reliability, mistakes, classes, exports.

import { canSelect, confusionMatrix, rateBar, reliability } from "./charts.js";
import { button, download, h } from "./dom.js";
import { count, csv, fixed, interval, percent, plural } from "./format.js";

export function comparison(answer) {
  const { a, b, n, verdict, difference, difference_interval: range, ...counts } = answer.comparison;
  const from = scaleStart([a, b].map((each) => each.accuracy_interval.lower));
  const row = (each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, each.model),
      h("td", {}, percent(each.accuracy)),
      h("td", {}, rateBar(each.accuracy, each.accuracy_interval, from)),
      h("td", { className: "quiet" }, interval(each.accuracy_interval)),
    );
  const points = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
  return h(
    "section",
    { className: "card comparison" },
    h("h3", {}, verdict),
    h("div", { className: "scroll", tabIndex: 0 }, h("table", {}, h("tbody", {}, row(a), row(b)))),
    h(
      "p",
      {},
      `Difference: ${points(difference)} points, 95% interval ${points(range.lower)} to ${points(range.upper)}, on the same ${plural(n, "image")}.`,
    ),
    h(
      "p",
      { className: "quiet" },
      `Right by both: ${count(counts.both_right)}; only by ${a.model}: ${count(counts.only_a_right)}; only by ${b.model}: ${count(counts.only_b_right)}; by neither: ${count(counts.both_wrong)}.`,
    ),
    exports(answer, "comparison", comparisonRows(answer)),
  );
}

const scaleStart = (lowers) => Math.max(0, Math.floor(10 * Math.min(...lowers) - 0.5) / 10);

// picture returns the image of a mistake: a Blob, or a promise of one.
export function report(result, picture) {
  const mistakes = h("ol", { className: "mistakes" });
  const shownFor = h("p", { className: "quiet" });
  const showMistakes = (pair) => {
    const shown = result.worst_mistakes.filter(
      ({ label, predicted }) => !pair || (label === pair[0] && predicted === pair[1]),
    );
    shownFor.textContent = !pair
      ? `The most confident first.${canSelect(labels) ? " Select a cell of the matrix to see only its mistakes." : ""}`
      : pair[0] === pair[1]
        ? `Images of ${pair[0]} predicted as ${pair[0]} are right. Select the cell again to see all mistakes.`
        : `${shown.length} of these are ${pair[0]} predicted as ${pair[1]}. Select the cell again to see all.`;
    mistakes.replaceChildren(...shown.map((each) => mistake(each, picture)));
  };
  const labels = result.per_class.map(({ label }) => label);
  showMistakes(null);
  const matrix = card(
    "Confusion matrix",
    "Rows are labels, columns are predictions.",
    confusionMatrix(labels, result.confusion_matrix, showMistakes),
  );
  const calibration = card(
    "Reliability",
    "Does a confidence of 80 % mean 80 % right? Bars below the diagonal are overconfident.",
    reliability(result.calibration),
    h(
      "p",
      { className: "readout" },
      `Expected calibration error ${percent(result.calibration.expected_calibration_error)}`,
    ),
  );
  const worst = result.worst_mistakes.length ? [card("Worst mistakes", shownFor, mistakes)] : [];
  return [
    h(
      "h3",
      { className: "report-title" },
      `${result.model}, version ${result.version} `,
      h("span", { className: "quiet" }, `${result.variant} on ${plural(result.n, "image")}`),
    ),
    tiles(result),
    ...notices(result),
    h("div", { className: "pair" }, matrix, calibration),
    ...worst,
    card("Classes", null, h("div", { className: "scroll tall", tabIndex: 0 }, classTable(result))),
    exports(result, "report", reportRows(result)),
  ];
}

function card(title, hint, ...children) {
  return h(
    "section",
    { className: "card" },
    h("h3", {}, title),
    typeof hint === "string" ? h("p", { className: "quiet" }, hint) : hint,
    children,
  );
}

function tiles(result) {
  const top = result.top_k
    .filter(({ k }) => k > 1)
    .map(({ k, accuracy, accuracy_interval: range }) => [`Top-${k} accuracy`, percent(accuracy), interval(range)]);
  const figures = [
    ["Accuracy", percent(result.accuracy), interval(result.accuracy_interval)],
    ...top,
    [
      "Macro F1",
      percent(result.macro.f1),
      `precision ${percent(result.macro.precision)}, recall ${percent(result.macro.recall)}`,
    ],
    ["Log loss", fixed(result.log_loss), "nats; 0 is perfect"],
    ...(result.roc_auc == null
      ? []
      : [["ROC AUC", fixed(result.roc_auc), `average precision ${fixed(result.average_precision)}`]]),
  ];
  const made = figures.map(([name, value, hint]) =>
    h("div", { className: "tile" }, h("dt", {}, name), h("dd", {}, value, h("small", {}, hint))),
  );
  return h("dl", { className: "tiles" }, made);
}

function notices({ notes, errors }) {
  const lines = [...notes];
  if (errors.length)
    lines.push(
      `${plural(errors.length, "image")} could not be read and ${errors.length === 1 ? "is" : "are"} excluded; the first: ${errors[0].reason}`,
    );
  return lines.length
    ? [
        h(
          "ul",
          { className: "notices" },
          lines.map((line) => h("li", {}, line)),
        ),
      ]
    : [];
}

function mistake(each, picture) {
  const name = each.name ?? `image ${each.index}`;
  const image = h("img", { alt: name });
  const place = h("div", { className: "picture" }, image);
  image.addEventListener("load", () => {
    image.classList.toggle("small", image.naturalWidth <= 64);
    URL.revokeObjectURL(image.src);
  });
  image.addEventListener("error", () => place.replaceChildren(h("span", { className: "no-preview" }, "no preview")));
  const missing = () => image.dispatchEvent(new Event("error"));
  Promise.resolve(picture(each)).then((blob) => (blob ? (image.src = URL.createObjectURL(blob)) : missing()), missing);
  const caption = h(
    "figcaption",
    {},
    h("strong", {}, each.predicted),
    ` ${percent(each.probability)}`,
    h("br"),
    h("span", { className: "quiet" }, `is ${each.label}`),
    h("br"),
    h("small", { dir: "auto", title: name }, name.split("/").at(-1)),
  );
  return h("li", {}, h("figure", {}, place, caption));
}

function classTable({ per_class: classes }) {
  const rate = (value, range) => h("td", {}, percent(value), h("small", {}, range ? interval(range) : ""));
  const rows = classes.map((each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, each.label),
      rate(each.precision, each.precision_interval),
      rate(each.recall, each.recall_interval),
      h("td", {}, percent(each.f1)),
      h("td", {}, count(each.support)),
    ),
  );
  const head = ["Class", "Precision", "Recall", "F1", "Images"].map((name) => h("th", { scope: "col" }, name));
  return h("table", { className: "figures" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
}

function exports(answer, name, rows) {
  return h(
    "div",
    { className: "actions" },
    button("Export JSON", () => download(`${name}.json`, JSON.stringify(answer, null, 2), "application/json")),
    button("Export CSV", () => download(`${name}.csv`, csv(rows), "text/csv")),
  );
}

function reportRows(result) {
  const head = [
    "label",
    "precision",
    "precision_lower",
    "precision_upper",
    "recall",
    "recall_lower",
    "recall_upper",
    "f1",
    "images",
  ];
  const rows = result.per_class.map((each) => [
    each.label,
    each.precision,
    each.precision_interval?.lower,
    each.precision_interval?.upper,
    each.recall,
    each.recall_interval?.lower,
    each.recall_interval?.upper,
    each.f1,
    each.support,
  ]);
  const { macro, accuracy, accuracy_interval: range, n } = result;
  rows.push(
    ["(macro average)", macro.precision, "", "", macro.recall, "", "", macro.f1, n],
    ["(accuracy)", accuracy, range.lower, range.upper, "", "", "", "", n],
  );
  return [head, ...rows];
}

function comparisonRows({ comparison: { a, b, n, difference, difference_interval: range, p_value: p } }) {
  const row = (each) => [each.model, each.accuracy, each.accuracy_interval.lower, each.accuracy_interval.upper, n, ""];
  return [
    ["model", "accuracy", "lower", "upper", "images", "p_value"],
    row(a),
    row(b),
    ["difference", difference, range.lower, range.upper, n, p],
  ];
}
