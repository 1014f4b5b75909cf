/** Talking to the server: the token, and refusals in plain words. */

import { pauseFor } from "./repeat.js";
import { sentence } from "./words.js";

const TOKEN = "skipseg.token";
const MOST_WAITS = 3;

/** What the server refused, in words for the reader. */
export class Refusal extends Error {
  constructor(status, detail, retryAfter) {
    super(sentence(POLITE[status] ?? `The server answered with status ${status}`, status === 413 ? "" : detail));
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const POLITE = {
  0: "The server does not answer; it may have been stopped",
  403: "The server refused this",
  404: "This is not, or no longer, on the server",
  408: "The server waited too long for this",
  409: "This is not possible now",
  413: "This file is larger than the server takes",
  415: "This kind of file cannot be read here",
  422: "The server could not use this",
  429: "The server is busy",
  500: "Something went wrong on the server; its log says more",
};

/** Whether a refusal passes: no answer from a server or a proxy that starts anew, or too many requests. */
export const isPassing = ({ status }) => status === 0 || status === 429 || status >= 502;

/** Ask for something below /api. Reading is tried again when the server asks to wait a little. */
export async function api(path, { method = "GET", json = null, as = "json", signal = null } = {}) {
  for (let waits = 0; ; ) {
    const answer = await attempt(path, { method, json, signal });
    if (answer.status === 401) {
      await askToken();
      continue;
    }
    if (answer.status === 429 && method === "GET" && waits < MOST_WAITS) {
      waits += 1;
      await pauseFor(1000 * (Number(answer.headers.get("Retry-After")) || 1), signal);
      continue;
    }
    if (!answer.ok) throw await refusalOf(answer);
    if (answer.status === 204) return null;
    return as === "json" ? answer.json() : as === "bytes" ? answer.arrayBuffer() : answer;
  }
}

async function attempt(path, { method, json, signal }) {
  const headers = authorisation();
  if (json !== null) headers["Content-Type"] = "application/json";
  try {
    return await fetch(`/api/${path}`, { method, headers, body: json === null ? null : JSON.stringify(json), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "");
  }
}

async function refusalOf(answer) {
  let detail = "";
  try {
    detail = detailOf(await answer.json());
  } catch {
    // An answer without JSON has no detail.
  }
  return new Refusal(answer.status, detail, Number(answer.headers.get("Retry-After")) || null);
}

function detailOf(content) {
  const detail = content?.detail ?? content?.error ?? "";
  if (Array.isArray(detail)) return detail.map((each) => each.msg).join("; ");
  return typeof detail === "string" ? detail : "";
}

/** Send a file; `onProgress` gets the share that is sent. Only XMLHttpRequest tells it. */
export async function upload(file, onProgress, signal) {
  for (;;) {
    const answer = await send(file, onProgress, signal);
    if (answer.status === 401) {
      await askToken();
      continue;
    }
    const content = parsed(answer.responseText);
    if (answer.status === 201) return content;
    throw new Refusal(answer.status, detailOf(content), Number(answer.getResponseHeader("Retry-After")) || null);
  }
}

function send(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/uploads");
    for (const [name, value] of Object.entries(authorisation())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && onProgress(event.loaded / event.total));
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Refusal(0, "")));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file, "scan"); // names may be of patients: content alone decides
    request.send(form);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function authorisation() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

let asking = null;

/** Ask the reader for the token; several requests that were refused wait for the same answer. */
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask-token");
    const field = document.getElementById("token");
    if (sessionStorage.getItem(TOKEN)) document.getElementById("ask-token-why").textContent = "The server did not accept that token. Please check it.";
    field.value = "";
    dialog.oncancel = (event) => event.preventDefault();
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, field.value.replace(/[^!-~]/g, "")); // a token has no other characters
      field.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
