// The tabs, and what they share.

import { askForKey } from "./api.js";
import { refresh } from "./catalog.js";
import { $, say } from "./dom.js";
import * as evaluate from "./evaluate.js";
import * as live from "./live.js";
import * as models from "./models.js";
import * as predict from "./predict.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function showTab() {
  const name = location.hash.slice(1);
  const chosen = tabs.find((tab) => tab.dataset.panel === name) ?? tabs[0];
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    $(tab.dataset.panel).hidden = tab !== chosen;
  }
  live[chosen.dataset.panel === "live" ? "start" : "stop"]();
}

const load = () => refresh().catch((error) => say($("predict-message"), error.message, true));

function moveBetweenTabs(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
  next.focus();
  next.click();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => {
    history.pushState(null, "", `#${tab.dataset.panel}`);
    showTab();
    if (tab.dataset.panel === "models") load();
  });
  tab.addEventListener("keydown", moveBetweenTabs);
}
for (const kind of ["popstate", "hashchange"]) addEventListener(kind, showTab);
// A file that misses the drop zone must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
$("key-button").addEventListener("click", async () => {
  if (!(await askForKey("The service asks for a key only if its operator has set one."))) return;
  load();
  showTab();
});

for (const tab of [predict, evaluate, models]) tab.setUp();
showTab();
load();
