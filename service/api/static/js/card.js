// A model card: Markdown -> elements. The card is untrusted: only these kinds of tokens become elements, HTML in it is
// shown as text, and links and pictures may only lead where `allowed` says.

import { lexer } from "../vendor/marked-18.2.1.esm.js";
import { loadable } from "./api.js";
import { h } from "./dom.js";

const SIMPLE = { paragraph: "p", strong: "strong", em: "em", del: "del", blockquote: "blockquote", text: null };

// home is the address that relative pictures are resolved against.
export function renderCard(markdown, home) {
  const body = markdown.replace(/^---\r?\n[^]*?\r?\n---\r?\n/, ""); // the front matter
  return h("div", { className: "prose" }, nodes(lexer(body), home));
}

const nodes = (tokens, home) => (tokens ?? []).flatMap((token) => node(token, home));

function node(token, home) {
  const inside = () => (token.tokens ? nodes(token.tokens, home) : [entities(token.text)]);
  if (token.type in SIMPLE) return SIMPLE[token.type] ? h(SIMPLE[token.type], {}, inside()) : inside();
  switch (token.type) {
    case "heading":
      return h(`h${Math.min(6, token.depth + 3)}`, {}, inside()); // below the page's own headings
    case "code":
      return h("pre", { tabIndex: 0 }, h("code", {}, token.text));
    case "codespan":
      return h("code", {}, token.text);
    case "list":
      return h(
        token.ordered ? "ol" : "ul",
        {},
        token.items.map((item) => h("li", {}, nodes(item.tokens, home))),
      );
    case "table":
      return table(token, home);
    case "link":
      return /^https?:\/\//i.test(token.href)
        ? h("a", { href: token.href, rel: "noopener noreferrer" }, inside())
        : inside();
    case "image":
      return picture(token, home);
    case "br":
    case "hr":
      return h(token.type);
    case "space":
    case "def":
      return [];
    default:
      return [token.raw]; // html, and anything new
  }
}

function table({ header, rows }, home) {
  const row = (tag, cells) =>
    h(
      "tr",
      {},
      cells.map((cell) => h(tag, {}, nodes(cell.tokens, home))),
    );
  const made = h(
    "table",
    { className: "figures" },
    h("thead", {}, row("th", header)),
    h(
      "tbody",
      {},
      rows.map((cells) => row("td", cells)),
    ),
  );
  return h("div", { className: "scroll", tabIndex: 0 }, made);
}

// Only pictures of the bundle's own report.
function picture({ href, text }, home) {
  if (!/^report\/[\w.-]+$/.test(href)) return [text];
  const image = h("img", { alt: text, loading: "lazy" });
  loadable(`${home}/${href}`).then((source) => (image.src = source));
  return image;
}

const entities = (text) =>
  text.replace(/&(lt|gt|amp|quot|#39);/g, (_, name) => ({ lt: "<", gt: ">", amp: "&", quot: '"', "#39": "'" })[name]);
