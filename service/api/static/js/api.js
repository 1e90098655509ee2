// Requests to the service. If it asks for a key, so does the page; the key is kept until the tab is closed.

import { $ } from "./dom.js";

const KEY = "key";
export const NEEDS_KEY = [401, 403];

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const key = () => sessionStorage.getItem(KEY);
export const keyHeaders = () => (key() ? { "X-API-Key": key() } : {});
export const absolute = (path) => new URL(path, document.baseURI).href;

// Returns the response. Raises ApiError with the service's own sentence.
export async function request(path, { method = "GET", body, json, onProgress, signal } = {}) {
  const send = () => exchange(path, { method, body: json ? JSON.stringify(json) : body, json, onProgress, signal });
  let response = await send();
  while (NEEDS_KEY.includes(response.status) && (await askForKey(detailOf(response)))) response = await send();
  if (response.status >= 400) throw new ApiError(response.status, detailOf(response));
  return response;
}

export async function getJson(path, options) {
  return JSON.parse((await request(path, options)).text);
}

// fetch reports no upload progress, so this is an XMLHttpRequest.
function exchange(path, { method, body, json, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open(method, path);
    for (const [name, value] of Object.entries(keyHeaders())) sent.setRequestHeader(name, value);
    if (json) sent.setRequestHeader("Content-Type", "application/json");
    if (onProgress) sent.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    sent.onload = () =>
      resolve({ status: sent.status, text: sent.responseText, timing: sent.getResponseHeader("Server-Timing") });
    sent.onerror = () => reject(new ApiError(0, "The service does not answer. Check that it runs, then try again."));
    sent.onabort = () => reject(new DOMException("The request was cancelled.", "AbortError"));
    signal?.addEventListener("abort", () => sent.abort());
    sent.send(body);
  });
}

function detailOf({ status, text }) {
  try {
    const problem = JSON.parse(text);
    return problem.detail ?? problem.error; // /v2 has its own form of errors
  } catch {
    return `The service answered with status ${status}.`;
  }
}

let asking = null; // the open dialog's answer: requests that fail meanwhile wait for the same key

// Returns whether the user gave a key.
export function askForKey(reason) {
  return (asking ??= openKeyDialog(reason).finally(() => (asking = null)));
}

function openKeyDialog(reason) {
  const dialog = $("key-dialog");
  $("key-reason").textContent = reason;
  $("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        if (dialog.returnValue === "forget") sessionStorage.removeItem(KEY);
        const given = dialog.returnValue === "use" && $("key").value.trim();
        if (given) sessionStorage.setItem(KEY, given);
        resolve(Boolean(given));
      },
      { once: true },
    );
  });
}

// The browser sends no key with links and images, so with a key their files are fetched here and become blobs.
export async function loadable(path) {
  if (!key()) return path;
  const response = await fetch(path, { headers: keyHeaders() });
  return URL.createObjectURL(await response.blob());
}

export async function getText(path) {
  return (await request(path)).text;
}
