// The page: images -> POST /models/{name}/predict -> bars; GET /models -> cards of the models.

const SHOWN_CLASSES = 5;
const SHOWN_LABELS = 12;
const $ = (id) => document.getElementById(id);
const percent = (rate) => `${(100 * rate).toFixed(1)} %`;
const copyOf = (template) => $(template).content.firstElementChild.cloneNode(true);

// A service with keys responds 401; the page keeps the key until the tab is closed.
async function fetchJson(path, options) {
  let response = await fetch(path, { ...options, headers: keyHeader() });
  if (response.status === 401) {
    sessionStorage.setItem("key", window.prompt("Enter an API key:") ?? "");
    response = await fetch(path, { ...options, headers: keyHeader() });
  }
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail);
  return body;
}

function keyHeader() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function say(text, isError = false) {
  $("message").textContent = text;
  $("message").hidden = !text;
  $("message").classList.toggle("error", isError);
}

async function classify(files) {
  const images = [...files];
  const model = $("model").value;
  if (!images.length) return;
  if (!model) return say("No model is ready. See the reasons below.", true);
  const form = new FormData();
  for (const image of images) form.append("files", image);
  say(`Classifying ${images.length} ${images.length === 1 ? "image" : "images"} with ${model} …`);
  try {
    const path = `models/${model}/predict?top_k=${SHOWN_CLASSES}&on_error=item`;
    const answer = await fetchJson(path, { method: "POST", body: form });
    clearPredictions();
    $("predictions").replaceChildren(...answer.predictions.map((prediction, i) => predictionCard(prediction, images[i])));
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

function clearPredictions() {
  for (const image of $("predictions").querySelectorAll("img")) URL.revokeObjectURL(image.src);
}

function predictionCard(prediction, file) {
  const card = copyOf("prediction-card");
  const image = card.querySelector("img");
  image.addEventListener("error", () => image.remove());
  image.src = URL.createObjectURL(file);
  card.querySelector(".file").textContent = file.name;
  card.querySelector("h3").textContent = prediction.error ? "Invalid image" : prediction.label;
  if (prediction.error) {
    card.classList.add("refused");
    card.querySelector(".bars").replaceWith(element("p", prediction.error.reason));
  } else {
    card.querySelector(".bars").replaceChildren(...prediction.top.map(bar));
  }
  return card;
}

function bar(entry) {
  const line = copyOf("bar");
  line.querySelector(".label").textContent = entry.label;
  line.querySelector("progress").value = entry.probability;
  line.querySelector(".value").textContent = percent(entry.probability);
  return line;
}

function modelCard(model) {
  const card = copyOf("model-card");
  const title = card.querySelector("h3");
  title.append(model.name, element("small", `version ${model.version}`), element("span", model.state));
  title.lastChild.className = `state ${model.state}`;
  card.classList.add(model.state);
  if (model.reason) {
    card.querySelector(".reason").textContent = model.reason;
    card.querySelector(".reason").hidden = false;
  }
  for (const [term, value] of facts(model)) card.querySelector("dl").append(element("dt", term), element("dd", value));
  const home = `models/${model.name}/versions/${model.version}`;
  const address = (file) => `${home}/report/${file}`;
  const isPlot = (file) => file.endsWith(".png");
  card.querySelector(".plots").replaceChildren(...model.report.filter(isPlot).map((file) => plot(address(file), file)));
  card.querySelector(".files").replaceChildren(
    link(home, "details"),
    ...model.report.filter((file) => !isPlot(file)).map((file) => link(address(file), file)),
  );
  return card;
}

function facts(model) {
  const known = [];
  if (model.accuracy !== null) known.push(["Test accuracy", accuracy(model)]);
  if (model.input) known.push(["Input", `${model.input.width} × ${model.input.height}, ${model.input.channels === 1 ? "grey" : "colour"}`]);
  if (model.labels.length) {
    const more = model.labels.length - SHOWN_LABELS;
    known.push(["Labels", model.labels.slice(0, SHOWN_LABELS).join(", ") + (more > 0 ? ` and ${more} more` : "")]);
  }
  if (model.variant) known.push(["Variant", `${model.variant}: ${model.variant_reason}`]);
  if (model.provider) known.push(["Runs on", model.provider]);
  return known;
}

function accuracy(model) {
  const percent = (rate) => `${(100 * rate).toFixed(2)} %`;
  const { lower, upper } = model.accuracy_interval;
  const images = model.test_images.toLocaleString("en");
  return `${percent(model.accuracy)} of ${model.accuracy_variant}, 95% interval ${percent(lower)} to ${percent(upper)}, n = ${images}`;
}

function plot(address, file) {
  const anchor = link(address, "");
  const image = element("img", "");
  Object.assign(image, { alt: "", loading: "lazy" });
  loadable(address).then((source) => (image.src = source));
  anchor.append(image, element("span", file.replace(".png", "").replaceAll("_", " ")));
  return anchor;
}

function link(address, text) {
  const anchor = element("a", text);
  anchor.href = address;
  anchor.addEventListener("click", async (event) => {
    if (!sessionStorage.getItem("key")) return;
    event.preventDefault();
    location.assign(await loadable(address));
  });
  return anchor;
}

// The browser sends no key for links and images, so with a key they are fetched here and shown as blobs.
async function loadable(address) {
  if (!sessionStorage.getItem("key")) return address;
  const response = await fetch(address, { headers: keyHeader() });
  return URL.createObjectURL(await response.blob());
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

async function showModels() {
  try {
    const list = await fetchJson("models");
    const { default: preferred, models } = list;
    const ready = models.filter((model) => model.current);
    $("model").replaceChildren(...ready.map((model) => new Option(model.name, model.name, false, model.name === preferred)));
    $("device").textContent = `Models run on ${list.provider}: ${list.provider_reason}`;
    $("models").replaceChildren(...models.map(modelCard));
    if (!models.length) $("models").textContent = "No models yet. Run make train.";
  } catch (error) {
    say(error.message, true);
  }
}

$("files").addEventListener("change", (event) => classify(event.target.files));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") classify(event.dataTransfer.files);
  });
}
addEventListener("paste", (event) => classify(event.clipboardData.files));
showModels();
