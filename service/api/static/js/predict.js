// Predict: images -> POST /models/{name}/predict -> a card for each image.

import { request } from "./api.js";
import { bindPicker, canAnswer, catalog, choice, chosenPath, explains, find, obstacle, refresh } from "./catalog.js";
import { correct, labelOf, withdraw } from "./corrections.js";
import { $, acceptFiles, button, download, h, say } from "./dom.js";
import { bindCanvas } from "./drawing.js";
import { csv, percent, plural } from "./format.js";
import { codeDisclosure } from "./snippets.js";

const TOP = 5;
const IMAGES_PER_REQUEST = 16;
const BYTES_PER_REQUEST = 16 * 2 ** 20;
const QUERY = { top_k: TOP, on_error: "item" };

let items = []; // { file, url, node, answer: { prediction, model, version, timings, shared } | error }
let asked = 0; // numbers the questions: an answer to an earlier one about the same item is dropped

export function setUp() {
  bindPicker($("predict-model"));
  acceptFiles($("drop"), [$("files"), $("camera")], add);
  addEventListener("paste", ({ clipboardData }) => {
    if (!$("predict").hidden && clipboardData?.files.length) add([...clipboardData.files]);
  });
  const canvas = bindCanvas($("canvas"), () => choice().input.width, showDrawing);
  $("clear-drawing").addEventListener("click", () => {
    canvas.clear();
    drawing = null;
  });
  $("clear").addEventListener("click", clear);
  $("export").addEventListener("click", exportCsv);
  for (const kind of ["change", "choice"]) catalog.addEventListener(kind, showChoice);
  catalog.addEventListener("choice", () => ask(items));
  catalog.addEventListener("change", () => ask(items.filter(({ question }) => !question)));
  showChoice();
}

function showChoice() {
  const model = choice();
  say($("predict-message"), obstacle(), true);
  const drawable = model?.input?.channels === 1 && model.labels.every((label) => /^[0-9A-Za-z]$/.test(label));
  $("draw").hidden = !drawable || model.state !== "ready";
  $("drop").classList.toggle("beside", !$("draw").hidden);
}

function add(files) {
  const added = files.map((file) => ({ file, url: URL.createObjectURL(file), node: h("li") }));
  for (const item of added) wait(item, 0);
  items = [...added, ...items];
  $("cards").prepend(...added.map(({ node }) => node));
  showToolbar();
  return ask(added);
}

let drawing = null; // the item of the drawing, until the canvas is cleared

function showDrawing(file) {
  if (!drawing || !items.includes(drawing)) {
    add([file]);
    [drawing] = items;
    return;
  }
  if (labelOf(drawing.file) !== undefined) withdraw(drawing.file);
  URL.revokeObjectURL(drawing.url);
  Object.assign(drawing, { file, url: URL.createObjectURL(file) });
  ask([drawing]);
}

function clear() {
  for (const item of items) {
    URL.revokeObjectURL(item.url);
    item.question = null; // ends its classification
  }
  items = [];
  drawing = null;
  $("cards").replaceChildren();
  say($("predict-message"), obstacle(), true);
  showToolbar();
}

async function ask(asking) {
  const model = choice();
  if (!asking.length || !canAnswer()) return;
  const question = ++asked;
  for (const item of asking) wait(item, question);
  let done = 0;
  for (const chunk of chunks(asking)) {
    say(
      $("predict-message"),
      `Classifying ${done + 1} to ${done + chunk.length} of ${plural(asking.length, "image")} …`,
    );
    await askChunk(chunk, model, question);
    done += chunk.length;
    if (asking.every((item) => item.question !== question)) return; // the model was switched, or the images cleared
  }
  const failed = asking.find(({ error }) => error)?.error;
  say($("predict-message"), failed ?? "", Boolean(failed));
}

function* chunks(list) {
  let chunk = [];
  let bytes = 0;
  for (const item of list) {
    if (chunk.length && (chunk.length === IMAGES_PER_REQUEST || bytes + item.file.size > BYTES_PER_REQUEST)) {
      yield chunk;
      [chunk, bytes] = [[], 0];
    }
    chunk.push(item);
    bytes += item.file.size;
  }
  yield chunk;
}

async function askChunk(chunk, model, question) {
  const finish = (outcome, answering) => {
    for (const [i, item] of chunk.entries()) {
      if (item.question !== question) continue;
      Object.assign(item, outcome(i));
      show(item, answering);
    }
  };
  try {
    const { text, timing } = await post(
      chunk.map(({ file }) => file),
      QUERY,
    );
    const { predictions, ...by } = JSON.parse(text);
    const timings = readTimings(timing);
    const answering = await versionOf(by, model);
    finish((i) => ({ answer: { ...by, prediction: predictions[i], timings, shared: chunk.length } }), answering);
  } catch (error) {
    finish(() => ({ error: error.message }), model);
  }
}

// Returns the version that answered. It is not the one that was asked if another one was promoted since.
async function versionOf({ model: name, version }, asked) {
  if (version !== asked.version) await refresh().catch(() => {});
  return find(name, version) ?? asked;
}

function post(files, query) {
  const body = new FormData();
  for (const file of files) body.append("files", file);
  return request(`${chosenPath()}/predict?${new URLSearchParams(query)}`, { method: "POST", body });
}

// "decode;dur=0.1, total;dur=2.5" -> { decode: 0.1, total: 2.5 }, in milliseconds
function readTimings(header) {
  return Object.fromEntries(
    [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]),
  );
}

function wait(item, question) {
  Object.assign(item, { question, answer: null, error: null, explanation: null });
  item.node.className = "card prediction waiting";
  item.node.replaceChildren(picture(item), h("div", { className: "answer" }, fileName(item.file)));
}

function show(item, model) {
  const prediction = item.answer?.prediction;
  const reason = item.error ?? prediction.error?.reason;
  item.node.className = `card prediction${reason ? " refused" : ""}`;
  const answer = reason ? refusal(item, reason) : prediction.label == null ? unsure(item) : answerOf(item, model);
  item.node.replaceChildren(picture(item), h("div", { className: "answer" }, answer));
}

function picture({ url, file }) {
  const image = h("img", { src: url, alt: file.name });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth <= 64));
  image.addEventListener("error", () => image.replaceWith(h("span", { className: "no-preview" }, "no preview")));
  return h("div", { className: "picture" }, image);
}

function refusal({ file, error }, reason) {
  const again = () => ask(items.filter((item) => item.error));
  return [
    h("h3", {}, error ? "No answer" : "Refused"),
    h("p", { className: "reason" }, reason),
    fileName(file),
    error ? button("Try again", again) : null,
  ];
}

const fileName = ({ name }) => h("p", { className: "file", dir: "auto" }, name);

function unsure({ answer, file }) {
  return [h("h3", {}, "Unsure"), h("p", {}, answer.prediction.reason), fileName(file)];
}

function answerOf(item, model) {
  const { prediction, model: name, version } = item.answer;
  const actions = h("div", { className: "actions" });
  if (explains(model)) actions.append(whyButton(item));
  actions.append(wrongButton(item, model));
  const path = `${chosenPath()}/predict`;
  const call = () => ({ path, query: QUERY, files: [{ field: "files", name: item.file.name }] });
  return [
    h("h3", {}, prediction.label, h("span", { className: "probability" }, percent(prediction.probability))),
    h("ul", { className: "bars" }, prediction.top.map(bar)),
    fileName(item.file),
    h(
      "p",
      { className: "by" },
      `${name}, version ${version}${model.variant ? `, ${model.variant}` : ""}`,
      timingsOf(item),
    ),
    actions,
    codeDisclosure(call),
  ];
}

function bar({ label, probability }) {
  const track = h("span", { className: "track", style: { "--share": probability } });
  return h(
    "li",
    {},
    h("span", { className: "label", title: label }, label),
    track,
    h("span", { className: "value" }, percent(probability)),
  );
}

function timingsOf({ answer: { timings, shared } }) {
  const parts = Object.entries(timings).map(([stage, ms]) => `${stage} ${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms`);
  return h("span", { className: "timings" }, `${parts.join(" · ")}${shared > 1 ? `, for ${shared} images` : ""}`);
}

// The heat map is computed only when it is asked for: by the button, or by the pointer over the picture.
function whyButton(item) {
  const toggle = button("Why?", () => {
    const shown = item.node.classList.toggle("explained");
    toggle.setAttribute("aria-pressed", shown);
    if (shown) explain(item);
  });
  toggle.setAttribute("aria-pressed", "false");
  toggle.title = "Show the regions that speak for this label";
  queueMicrotask(() => item.node.querySelector(".picture").addEventListener("pointerenter", () => explain(item)));
  return toggle;
}

async function explain(item) {
  if (item.explanation) return;
  item.explanation = true;
  const place = item.node.querySelector(".picture"); // replaced if the image is sent again meanwhile
  try {
    const { text } = await post([item.file], { explain: true });
    const { label, overlay_png: png } = JSON.parse(text).predictions[0].explanation;
    const alt = `Heat map of the regions that speak for ${label}`;
    place.append(h("img", { className: "heat", alt, src: `data:image/png;base64,${png}` }));
  } catch (error) {
    if (!place.isConnected) return;
    item.explanation = null;
    say($("predict-message"), error.message, true);
  }
}

function wrongButton(item, model) {
  const place = h("span", { className: "wrong" });
  const rest = () => {
    const label = labelOf(item.file);
    if (label === undefined) place.replaceChildren(button("Wrong?", ask));
    else place.replaceChildren(h("span", {}, `Corrected to ${label} `), button("Undo", undo));
  };
  const ask = () => {
    const options = model.labels.map((label) =>
      h("option", { selected: label === item.answer.prediction.label }, label),
    );
    const select = h("select", {}, options);
    const save = (event) => {
      event.preventDefault();
      correct(item.file, select.value);
      leave();
    };
    const cancel = ({ key }) => {
      if (key === "Escape") leave();
    };
    place.replaceChildren(
      h("form", { onsubmit: save, onkeydown: cancel }, h("label", {}, "Correct label ", select), h("button", {}, "Save")),
    );
    select.focus();
  };
  const undo = () => {
    withdraw(item.file);
    leave();
  };
  const leave = () => {
    rest();
    place.querySelector("button").focus();
  };
  rest();
  return place;
}

function showToolbar() {
  $("results").hidden = !items.length;
  $("results-title").textContent = plural(items.length, "image");
}

function exportCsv() {
  const head = ["file", "label", "probability", "corrected", "model", "version", "error"];
  const rows = items.map(({ file, answer, error }) => {
    const { prediction, model, version } = answer ?? {};
    const reason = error ?? prediction?.error?.reason;
    return [file.name, prediction?.label, prediction?.probability, labelOf(file), model, version, reason];
  });
  download("predictions.csv", csv([head, ...rows]), "text/csv");
}
