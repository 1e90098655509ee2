// The same request as curl, Python and JavaScript code, to copy.

import { absolute, key } from "./api.js";
import { button, h } from "./dom.js";

// call: { path, method, query, files: [{ field, name }], fields: [[name, value]], json }
export function snippets(call) {
  const { query } = call;
  const url = absolute(call.path) + (query ? `?${new URLSearchParams(query)}` : "");
  return { curl: curl(url, call), Python: python(url, call), JavaScript: javascript(url, call) };
}

const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const literal = (value) => JSON.stringify(value);
const pairs = (object, text) => Object.entries(object).map(([name, value]) => text(literal(name), literal(value)));
// In a -F value, curl reads a name with , ; or " only in quotes.
const upload = (name) => (/[",;\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name);

function curl(url, { method = "POST", files = [], fields = [], json }) {
  const parts = [
    ...(key() ? ['-H "X-API-Key: $CONVOY_KEY"'] : []),
    ...files.map(({ field, name }) => `-F ${shell(`${field}=@${upload(name)}`)}`),
    ...fields.map(([name, value]) => `--form-string ${shell(`${name}=${value}`)}`),
    ...(json ? [`--json ${shell(JSON.stringify(json))}`] : []),
    ...(method === "POST" && !json && !files.length ? ["-X POST"] : []),
    shell(url),
  ];
  return `curl ${parts.join(" \\\n  ")}`;
}

function python(url, { method = "POST", files = [], fields = [], json }) {
  const lines = [literal(url)];
  if (files.length) {
    const list = files.map(({ field, name }) => `(${literal(field)}, open(${literal(name)}, "rb"))`);
    lines.push(`files=[${list.join(", ")}]`);
  }
  if (fields.length)
    lines.push(`data={${literal(fields[0][0])}: [${fields.map(([, value]) => literal(value)).join(", ")}]}`);
  if (json) lines.push(`json={${pairs(json, (name, value) => `${name}: ${value}`).join(", ")}}`);
  if (key()) lines.push('headers={"X-API-Key": os.environ["CONVOY_KEY"]}');
  const imports = `${key() ? "import os\n\n" : ""}import httpx  # pip install httpx\n\n`;
  return `${imports}response = httpx.${method.toLowerCase()}(\n    ${lines.join(",\n    ")},\n)\nresponse.raise_for_status()\nprint(response.text)`;
}

function javascript(url, { method = "POST", files = [], fields = [], json }) {
  const lines = [];
  const options = [`method: ${literal(method)}`];
  if (files.length) {
    const isOne = files.length === 1;
    const append = `form.append(${literal(files[0].field)}, file);`;
    lines.push(`// ${isOne ? "file: a File" : "files: Files"}, for example of an <input type="file">`);
    lines.push("const form = new FormData();", isOne ? append : `for (const file of files) ${append}`);
    lines.push(...fields.map(([name, value]) => `form.append(${literal(name)}, ${literal(value)});`));
    options.push("body: form");
  }
  if (json) options.push(`body: ${literal(JSON.stringify(json))}`);
  const headers = [...(key() ? ['"X-API-Key": apiKey'] : []), ...(json ? ['"Content-Type": "application/json"'] : [])];
  if (headers.length) options.push(`headers: { ${headers.join(", ")} }`);
  lines.push(`const response = await fetch(${literal(url)}, {\n  ${options.join(",\n  ")},\n});`);
  lines.push("if (!response.ok) throw new Error(await response.text());", "console.log(await response.text());");
  return lines.join("\n");
}

// Returns a closed disclosure. makeCall is called when it opens, so that the code shows the latest request.
export function codeDisclosure(makeCall, summary = "Code") {
  const details = h("details", { className: "code" }, h("summary", {}, summary));
  details.addEventListener("toggle", () => {
    details.querySelector("div")?.remove();
    if (details.open) details.append(codeTabs(snippets(makeCall())));
  });
  return details;
}

function codeTabs(codes) {
  const code = h("code");
  const copy = button("Copy", async () => {
    // Without HTTPS, only pages of this machine may write to the clipboard: elsewhere, the code is selected.
    if (!navigator.clipboard) return getSelection().selectAllChildren(code);
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
  });
  const choices = Object.entries(codes).map(([language, text]) =>
    button(language, () => {
      for (const each of choices) each.setAttribute("aria-pressed", each.textContent === language);
      code.textContent = text;
      copy.textContent = "Copy";
    }),
  );
  choices[0].click();
  const block = h("pre", { tabIndex: 0, "aria-label": "Request as code" }, code);
  return h("div", {}, h("div", { className: "languages" }, choices, copy), block);
}
