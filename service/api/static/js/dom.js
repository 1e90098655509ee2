// Small helpers for elements. Text from the service is untrusted: it becomes text nodes and never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// h("p", { className: "quiet" }, "text", child): properties, `on…` handlers, `data` and ARIA attributes.
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child != null));
  return node;
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value == null) continue;
    if (name === "data") Object.assign(node.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name in node && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

export function button(text, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, text);
}

// Shows a status text, or an error, in a live region. Without text, the region disappears.
export function say(region, text = "", isError = false) {
  region.textContent = text;
  region.hidden = !text;
  region.classList.toggle("error", isError);
}

export function download(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// Calls onFiles with the files that are chosen in an input, or dropped anywhere on the zone's tab.
export function acceptFiles(zone, inputs, onFiles) {
  for (const input of inputs) {
    input.addEventListener("change", () => {
      onFiles([...input.files]);
      input.value = ""; // the same file can be chosen again
    });
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.closest("section").addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
      if (kind === "drop") dropped(event.dataTransfer).then(onFiles);
    });
  }
}

// Returns the files, with those in folders; webkitRelativePath is set as for chosen folders.
async function dropped({ items }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean); // before any await
  return (await Promise.all(entries.map(filesBelow))).flat();
}

async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.slice(1) })];
  }
  const reader = entry.createReader();
  const next = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100
  const found = [];
  for (let some = await next(); some.length; some = await next()) found.push(...some);
  return (await Promise.all(found.filter(({ name }) => !name.startsWith(".")).map(filesBelow))).flat();
}
