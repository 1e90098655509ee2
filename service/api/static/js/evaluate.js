// Evaluate: labelled images -> POST /models/{name}/evaluate -> a report, or the comparison of two versions.

import { request } from "./api.js";
import { all, bindPicker, canAnswer, catalog, choice, chosenPath, obstacle } from "./catalog.js";
import { $, acceptFiles, button, h, say } from "./dom.js";
import { percent } from "./format.js";
import { readLabelled } from "./labelled.js";
import { comparison, report } from "./report.js";
import { codeDisclosure } from "./snippets.js";

const QUERY = { on_error: "item" };

let data = null; // from readLabelled
let running = null; // AbortController of the evaluation under way

export function setUp() {
  bindPicker($("evaluate-model"));
  acceptFiles($("evaluate-drop"), [$("evaluate-files"), $("evaluate-folder")], load);
  $("against").addEventListener("change", run);
  for (const kind of ["change", "choice"]) catalog.addEventListener(kind, showChoice);
  catalog.addEventListener("choice", run);
  showChoice();
}

function showChoice() {
  const model = choice();
  say($("evaluate-message"), obstacle(), true);
  const others = all().models.filter(
    ({ name, version, state }) => name === model?.name && version !== model.version && state === "ready",
  );
  const options = others.map(({ version }) => h("option", { value: version }, `version ${version}`));
  const before = $("against").value;
  $("against").replaceChildren(h("option", { value: "" }, "nothing"), ...options);
  if (others.some(({ version }) => String(version) === before)) $("against").value = before;
  $("against").disabled = !others.length;
  $("against-hint").hidden = Boolean(others.length) || !all().candidates.some(({ name }) => name === model?.name);
}

async function load(files) {
  if (!files.length) return;
  try {
    data = await readLabelled(files);
    await run();
  } catch (error) {
    say($("evaluate-message"), error.message, true);
  }
}

// Returns the request's path and query.
function question() {
  const against = $("against").value;
  if (!against) return [`${chosenPath()}/evaluate`, QUERY];
  const { name, version } = choice();
  return [`models/${name}/evaluate`, { ...QUERY, versions: `${against},${version}` }];
}

async function run() {
  if (!data || !canAnswer()) return;
  running?.abort();
  const mine = (running = new AbortController());
  const [path, query] = question();
  const call = data.call(path, query);
  $("report").replaceChildren();
  showProgress(0);
  try {
    const url = `${path}?${new URLSearchParams(query)}`;
    const { text } = await request(url, {
      method: "POST",
      body: data.form(),
      onProgress: showProgress,
      signal: mine.signal,
    });
    say($("evaluate-message"));
    show(JSON.parse(text), call);
  } catch (error) {
    if (mine === running) say($("evaluate-message"), error.message, true);
  } finally {
    if (mine === running) $("progress").hidden = true;
  }
}

function showProgress(sent) {
  $("progress").hidden = false;
  const bar = $("progress").querySelector("progress");
  if (sent < 1) bar.value = sent;
  else bar.removeAttribute("value"); // the service does not report how far it is
  const text = sent < 1 ? `Sending ${data.title}: ${percent(sent, 0)}` : `Evaluating ${data.title} …`;
  $("progress").querySelector("span").textContent = text;
}

function show(answer, call) {
  const code = () => codeDisclosure(() => call, "This request as code");
  const { picture } = data;
  if (!answer.comparison) return $("report").replaceChildren(...report(answer, picture), code());
  const body = h("div");
  const choices = [answer.b, answer.a].map((each) =>
    button(`Version ${each.version}`, () => {
      for (const other of choices) other.setAttribute("aria-pressed", other.textContent === `Version ${each.version}`);
      body.replaceChildren(...report(each, picture));
    }),
  );
  choices[0].click();
  const switcher = h("div", { className: "switch", role: "group", "aria-label": "Report of" }, choices);
  $("report").replaceChildren(comparison(answer), switcher, body, code());
}
