/** Numbers and times as people read them. */

/** Bytes: `1.4 MB`. */
export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) [count, at] = [count / 1000, at + 1];
  return `${at && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

/** Seconds: `8 s`, `2 min 5 s`, `1 h 3 min`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A number with about three digits, no trailing noise: `12.4`, `0.0312`, `1,204`. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-GB");
  return String(Number(value.toPrecision(3)));
}

/** A moment, which the server gives in ISO 8601, in the reader's own time. */
export const moment = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** A sentence with what is known beside it: `The server is busy: the queue is full.` */
export const sentence = (text, detail) => `${[text, detail?.replace(/\.$/, "")].filter(Boolean).join(": ")}.`;
