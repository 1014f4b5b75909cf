/** What this tab remembers: the names of the files that it sent. The server is never asked for them and never tells. */

const NAMES = "skipseg.names";

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(NAMES)) ?? {};
  } catch {
    return {};
  }
}

/** Remember which file an upload was. */
export function rememberName(upload, name) {
  sessionStorage.setItem(NAMES, JSON.stringify({ ...read(), [upload]: name }));
}

/** Name of an upload's file, if this tab sent it; else a short form of its id. */
export function nameOf(upload) {
  const name = read()[upload];
  return typeof name === "string" ? name : `scan ${String(upload).slice(0, 8)}`;
}
