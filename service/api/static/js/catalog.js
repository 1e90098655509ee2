// The models that the service knows, and the one that the user has chosen. All tabs share them.

import { getJson } from "./api.js";
import { h } from "./dom.js";

export const catalog = new EventTarget(); // "change": the list; "choice": the chosen version
let list = { default: null, models: [], candidates: [] };
let isLoaded = false;
let chosen = null; // NAME, or NAME/VERSION

export const all = () => list;
export const find = (name, version) => list.models.find((m) => m.name === name && m.version === version);
export const home = ({ name, version }) => `models/${name}/versions/${version}`;
export const explains = (model) => model?.explanation?.height != null;

export async function refresh() {
  list = await getJson("models");
  isLoaded = true;
  const ids = options().map(({ id }) => id);
  if (!ids.includes(chosen)) chosen = ids.includes(list.default) ? list.default : (ids[0] ?? null);
  catalog.dispatchEvent(new Event("change"));
}

// Returns the version that answers for the choice, or the refused one; undefined if there are no models.
export const choice = () => options().find(({ id }) => id === chosen)?.model;

// Returns models/NAME or models/NAME/versions/VERSION.
export const chosenPath = () => (chosen?.includes("/") ? home(choice()) : `models/${chosen}`);

export function choose(id) {
  if (id === chosen) return;
  chosen = id;
  catalog.dispatchEvent(new Event("choice"));
}

function options() {
  const names = [...new Set(list.models.map(({ name }) => name))];
  return names.flatMap((name) => {
    const versions = list.models.filter((model) => model.name === name);
    const current = versions.find((model) => model.current);
    const others = versions.filter((model) => model !== current && (model.state === "ready" || !current));
    return [
      ...(current ? [{ id: name, text: `${name} (version ${current.version})`, model: current }] : []),
      ...others.map((model) => ({ id: `${name}/${model.version}`, text: optionText(model), model })),
    ];
  });
}

const optionText = ({ name, version, state }) => `${name}, version ${version}${state === "ready" ? "" : ` (${state})`}`;

// Fills the select with the versions, and keeps it so.
export function bindPicker(select) {
  const update = () => {
    select.replaceChildren(...options().map(({ id, text }) => h("option", { value: id }, text)));
    select.value = chosen;
    select.disabled = !chosen;
  };
  select.addEventListener("change", () => choose(select.value));
  catalog.addEventListener("change", update);
  catalog.addEventListener("choice", update);
  update();
}

export const canAnswer = () => choice()?.state === "ready";

// Returns why the chosen version cannot answer, or "" if it can or is not known yet.
export function obstacle() {
  const model = choice();
  if (!isLoaded) return "";
  if (!model) return "There is no model yet. Train one with `make train`.";
  if (model.state === "ready") return "";
  return `${model.name}, version ${model.version}, is ${model.state}: ${model.reason}`;
}
