// Models: every version with its state, accuracy, curves, card and origin; and the admin's actions.

import { getText, loadable, key, request, getJson } from "./api.js";
import { all, catalog, home, refresh } from "./catalog.js";
import { legend, lineChart, rateBar } from "./charts.js";
import { $, button, h, say } from "./dom.js";
import { count, dateTime, duration, interval, percent, plural } from "./format.js";
import { codeDisclosure } from "./snippets.js";

const SHOWN_LABELS = 12;
const CARD = "README.md";
const open = new Set(); // the versions whose details are open, as NAME/VERSION

export function setUp() {
  catalog.addEventListener("change", show);
  $("refresh").addEventListener("click", () => act(async () => "The list is up to date."));
  show();
}

function show() {
  const { models, candidates, provider, provider_reason: reason } = all();
  $("device").textContent = provider ? `Models run on ${provider.replace("ExecutionProvider", "")}: ${reason}` : "";
  const names = [...new Set(models.map(({ name }) => name))];
  const sections = names.map((name) =>
    section(
      name,
      [...models, ...candidates].filter((model) => model.name === name),
    ),
  );
  $("model-list").replaceChildren(...sections);
  if (!names.length)
    $("model-list").append(
      h("p", { className: "empty" }, "No models yet. Train one with ", h("code", {}, "make train"), "."),
    );
}

function section(name, versions) {
  const newestFirst = [...versions].sort((a, b) => b.version - a.version);
  const serves = versions.find((model) => model.current);
  const lowers = versions.map((model) => model.accuracy_interval?.lower ?? 1);
  const from = Math.max(0, Math.floor(10 * Math.min(...lowers) - 0.5) / 10);
  const summary = serves ? `version ${serves.version} serves` : "no version serves";
  const actions = serves
    ? [button("Unload", () => unload(name))]
    : [button("Load", () => admin(`v2/repository/models/${name}/load`, undefined, `${name} is loaded.`))];
  return h(
    "section",
    { className: "model", "aria-label": `Model ${name}` },
    h(
      "div",
      { className: "title" },
      h("h3", {}, name, " ", h("span", { className: "quiet" }, summary)),
      h("div", { className: "actions" }, actions),
    ),
    newestFirst.map((model) => versionCard(model, serves, from)),
  );
}

function versionCard(model, serves, from) {
  const id = `${model.name}/${model.version}`;
  const details = h("details", { open: open.has(id) }, h("summary", {}, "Details"));
  const fill = () => {
    open[details.open ? "add" : "delete"](id);
    if (details.open && details.children.length === 1) showDetails(details, model);
  };
  details.addEventListener("toggle", fill);
  const state = model.current ? "serves" : model.state;
  return h(
    "article",
    { className: `card version ${state}` },
    h(
      "div",
      { className: "line" },
      h("h4", {}, `Version ${model.version}`),
      h("span", { className: `state ${state}` }, state),
      accuracy(model, from),
      h("div", { className: "actions" }, versionActions(model, serves)),
    ),
    model.reason ? h("p", { className: "reason" }, model.reason) : null,
    details,
  );
}

function accuracy(model, from) {
  if (model.accuracy == null) return h("span", { className: "accuracy" });
  const about = `${interval(model.accuracy_interval)}, n = ${count(model.test_images)}, ${model.accuracy_variant}`;
  return h(
    "span",
    { className: "accuracy" },
    h("strong", {}, percent(model.accuracy)),
    rateBar(model.accuracy, model.accuracy_interval, from),
    h("small", {}, about),
  );
}

function versionActions(model, serves) {
  if (model.current) return [];
  const actions = [];
  const { name, version } = model;
  if (model.state !== "refused") {
    const text = serves && version < serves.version ? `Roll back to ${version}` : "Promote";
    actions.push(
      button(text, () => admin(`models/${name}/promote`, { version }, `${name}, version ${version}, serves.`), {
        className: "primary",
      }),
    );
  }
  if (model.state !== "ready") {
    const pin = { parameters: { version: String(version) } };
    actions.push(
      button("Load", () => admin(`v2/repository/models/${name}/load`, pin, `${name}, version ${version}, is loaded.`)),
    );
  }
  return actions;
}

async function unload(name) {
  const dialog = $("unload-dialog");
  $("unload-name").textContent = name;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue === "unload")
    await admin(`v2/repository/models/${name}/unload`, undefined, `${name} is unloaded.`);
}

const admin = (path, json, done) => act(() => request(path, { method: "POST", json }).then(() => done));

async function act(action) {
  say($("models-message"), "Working …");
  try {
    const done = await action();
    await refresh();
    say($("models-message"), done);
  } catch (error) {
    say($("models-message"), error.message, true);
    await refresh().catch(() => {});
  }
}

async function showDetails(details, model) {
  const body = h("div", { className: "details" }, "Loading …");
  details.append(body);
  try {
    const detail = await getJson(home(model));
    const report = await reportParts(detail);
    const code = codeDisclosure(
      () => ({ path: `models/${model.name}/promote`, json: { version: model.version } }),
      "Promote this version by code",
    );
    body.replaceChildren(facts(detail), ...report, code);
  } catch (error) {
    body.textContent = error.message;
  }
}

function facts(model) {
  const rows = [...inputFacts(model), ...originFacts(model)].filter(([, value]) => value != null);
  return h(
    "dl",
    { className: "facts" },
    rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

function inputFacts({
  input,
  labels,
  variants,
  dropped_variants: dropped,
  variant_reason: reason,
  provider,
  calibration,
  reject,
}) {
  const more = labels.length - SHOWN_LABELS;
  return [
    [
      "Input",
      input && `${input.width} × ${input.height}, ${input.channels === 1 ? "grey" : "colour"}, ${input.resize}`,
    ],
    ["Labels", labels.length ? labels.slice(0, SHOWN_LABELS).join(", ") + (more > 0 ? ` and ${more} more` : "") : null],
    ["Answers", reason && `${reason}${provider ? ` (${provider})` : ""}`],
    ["Variants", variants.map(({ name, metrics }) => `${name} ${percent(metrics.accuracy, 2)}`).join(", ") || null],
    ...dropped.map(({ name, reason: why }) => [`No ${name}`, why]),
    [
      "Calibration",
      calibration &&
        `temperature ${calibration.temperature.toFixed(3)}, calibration error ${percent(calibration.test.after)} on the test split`,
    ],
    [
      "Threshold",
      reject &&
        (reject.threshold == null
          ? reject.reason
          : `${percent(reject.threshold)}, for ${percent(reject.target_accuracy)} accuracy`),
    ],
  ];
}

function originFacts({ provenance: origin, metrics }) {
  if (!origin) return [];
  const { data } = origin;
  return [
    [
      "Test split",
      metrics &&
        `${plural(metrics.test.n, "image")}, macro F1 ${percent(metrics.test.macro.f1)}, log loss ${metrics.test.log_loss.toFixed(3)}`,
    ],
    [
      "Data",
      `${data.name}: ${count(data.train)} training, ${count(data.validation)} validation, ${count(data.test)} test images`,
    ],
    ["Data hash", h("code", {}, data.content_hash.slice(0, 16))],
    [
      "Training",
      `${plural(origin.epochs, "epoch")} in ${duration(origin.duration_seconds)} on ${origin.device}, seed ${origin.seed}; epoch ${origin.best_epoch} was best`,
    ],
    ["Parameters", count(origin.parameters)],
    ["Created", `${dateTime(origin.created)}${origin.git_commit ? `, commit ${origin.git_commit.slice(0, 10)}` : ""}`],
    [
      "Recipe",
      h("details", {}, h("summary", {}, "settings"), h("pre", { tabIndex: 0 }, JSON.stringify(origin.recipe, null, 2))),
    ],
    [
      "Libraries",
      Object.entries(origin.libraries)
        .map(([name, version]) => `${name} ${version}`)
        .join(", "),
    ],
  ];
}

async function reportParts(model) {
  const address = (file) => `${home(model)}/report/${file}`;
  const parts = [];
  const drawn = model.report.includes("history.csv") && curves(await getText(address("history.csv")));
  if (drawn) parts.push(drawn);
  const plots = model.report.filter((file) => file.endsWith(".png") && !(drawn && file === "curves.png"));
  if (plots.length)
    parts.push(
      h(
        "div",
        { className: "plots" },
        plots.map((file) => plot(address(file), file)),
      ),
    );
  if (model.report.includes(CARD)) {
    const { renderCard } = await import("./card.js");
    const card = renderCard(await getText(address(CARD)), home(model));
    parts.push(h("details", { className: "model-card" }, h("summary", {}, "Model card"), card));
  }
  const others = model.report.filter((file) => !file.endsWith(".png") && file !== CARD);
  others.sort((a, b) => b.endsWith(".html") - a.endsWith(".html")); // the whole report first
  parts.push(
    h(
      "p",
      { className: "files" },
      others.map((file) => link(address(file), file)),
    ),
  );
  return parts;
}

// Draws the loss and accuracy of training and validation. Returns null if there are too few epochs for a curve.
function curves(text) {
  const [head, ...rows] = text
    .trim()
    .split(/\r?\n/)
    .map((line) => line.split(","));
  if (rows.length < 2) return null;
  const column = (name) => rows.map((row) => (head.includes(name) ? parseFloat(row[head.indexOf(name)]) : NaN));
  const chart = (what, format) => {
    const series = ["train", "validation"].map((name) => ({ name, kind: name, values: column(`${name}_${what}`) }));
    if (!series.some(({ values }) => values.some(Number.isFinite))) return null;
    return h(
      "figure",
      {},
      h("figcaption", {}, `${what} over ${plural(rows.length, "epoch")}`),
      lineChart(series, { label: `Curves of ${what}`, format }),
      legend(series),
    );
  };
  return h(
    "div",
    { className: "curves" },
    chart("loss", (value) => value.toFixed(2)),
    chart("accuracy", (value) => percent(value, 0)),
  );
}

function plot(address, file) {
  const image = h("img", { alt: "", loading: "lazy" });
  loadable(address).then((source) => (image.src = source));
  const anchor = link(address, "");
  anchor.append(image, h("span", {}, file.replace(".png", "").replaceAll("_", " ")));
  return anchor;
}

function link(address, text) {
  const follow = async (event) => {
    if (!key()) return;
    event.preventDefault();
    const source = await loadable(address);
    // A page made from a blob has this page's policy, which forbids the style in report.html.
    if (address.endsWith(".png")) location.assign(source);
    else h("a", { href: source, download: address.split("/").at(-1) }).click();
  };
  return h("a", { href: address, onclick: follow }, text);
}
