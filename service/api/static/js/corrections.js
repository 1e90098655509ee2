// Labels that the user corrected, as a zip of class folders: the format of training data and of /evaluate.

import { $, button, download, h } from "./dom.js";
import { plural } from "./format.js";
import { writeZip } from "./zip.js";

const corrected = new Map(); // File -> label

export const labelOf = (file) => corrected.get(file);

export function correct(file, label) {
  corrected.set(file, label);
  show();
}

export function withdraw(file) {
  corrected.delete(file);
  show();
}

function show() {
  const bar = $("corrections");
  bar.hidden = !corrected.size;
  bar.replaceChildren(
    h("p", {}, `${plural(corrected.size, "corrected label")} for the next training.`),
    button("Download zip", save, { className: "primary" }),
  );
}

async function save() {
  const used = new Set();
  const entries = [];
  for (const [file, label] of corrected) {
    const name = unused(`${safe(label)}/${safe(file.name)}`, used);
    entries.push({ name, bytes: new Uint8Array(await file.arrayBuffer()) });
  }
  download("corrections.zip", writeZip(entries));
}

// A label or file name is not a path, and must be a name on every system.
const safe = (name) => name.replace(/[/\\:*?"<>|\u0000-\u001f]/g, "_").replace(/^\.+/, "_");

function unused(path, used) {
  const dot = path.lastIndexOf(".");
  const [stem, suffix] = dot > path.indexOf("/") ? [path.slice(0, dot), path.slice(dot)] : [path, ""];
  for (let n = 1; used.has(path); n++) path = `${stem}-${n}${suffix}`;
  used.add(path);
  return path;
}
