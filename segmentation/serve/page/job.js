/** The view of one job, or of two on the same scan side by side: progress, then what was found. */

import { api, isPassing } from "./api.js";
import { comparison, others } from "./compare.js";
import { el, say } from "./dom.js";
import { isBusy, stateText } from "./jobs.js";
import { link } from "./look.js";
import { nameOf } from "./memory.js";
import { repeat } from "./repeat.js";
import { findings } from "./result.js";
import { duration } from "./words.js";

/** What is under way: a bar, words, and a button that stops it. */
function progressOf(id) {
  const bar = el("progress", { max: 1, "aria-label": "Progress" });
  const words = el("p", { class: "quiet" });
  const problem = el("p", { class: "notice", role: "alert" });
  const cancel = el("button", { type: "button", click: async () => {
    cancel.disabled = true;
    try {
      await api(`jobs/${id}`, { method: "DELETE" });
    } catch (error) {
      problem.textContent = error.message;
      cancel.disabled = false;
    }
  } }, "Cancel");
  let spoken = "";
  const update = (job) => {
    if (job.state === "queued") bar.removeAttribute("value");
    else bar.value = job.progress ?? 0;
    const parts = [stateText(job), job.windows ? `window ${job.windows_done} of ${job.windows}` : null, job.seconds_left === null ? null : `about ${duration(job.seconds_left)} left`];
    words.textContent = parts.filter(Boolean).join(", ");
    const quarter = `${job.model}: ${job.state === "running" ? `${25 * Math.floor(4 * (job.progress ?? 0))} %` : stateText(job)}`;
    if (quarter !== spoken) say((spoken = quarter));
  };
  return { element: el("div", { class: "progress" }, el("div", { class: "line" }, bar, cancel), words, problem), update };
}

/** One job's part of the view; resolves when the job has come to its end. */
async function follow(id, images, place, signal) {
  const progress = progressOf(id);
  const title = el("h2", {}, "…");
  const inside = el("div", {}, progress.element);
  place.append(title, inside);
  let last = null;
  await repeat(async () => {
    try {
      last = await api(`jobs/${id}`, { signal });
    } catch (error) {
      if (error.name === "AbortError") return false;
      if (inside.textContent !== error.message) inside.replaceChildren(el("p", { class: "note", role: "alert" }, error.message));
      last = null;
      return isPassing(error);
    }
    title.textContent = last.model;
    if (!progress.element.isConnected) inside.replaceChildren(progress.element);
    progress.update(last);
    return isBusy(last);
  }, 700, signal);
  if (signal.aborted || last === null) return null;
  const found = await findings(last, images, inside, signal);
  say(`${last.model}: ${stateText(last)}.`);
  return found;
}

/** Draw the view of the jobs `ids` into `main`. */
export async function showJobs(main, ids, signal) {
  const images = new Map(); // the scan is fetched once for both jobs
  const heading = el("h1", { tabindex: "-1", class: "file" }, await titleOf(ids[0], signal));
  const places = ids.map(() => el("section", { class: "result" }));
  const both = el("section", { class: "both", hidden: true });
  main.replaceChildren(el("p", { class: "kicker" }, el("a", { href: "#/" }, "Segment another scan")), heading, el("div", { class: ids.length > 1 ? "beside" : "single" }, places), both);
  const found = await Promise.all(ids.map((id, at) => follow(id, images, places[at], signal)));
  if (!found.every(Boolean)) return;
  if (found.length === 2 && found[0].job.upload === found[1].job.upload) link(found[0].view, found[1].view);
  try {
    both.replaceChildren(...(await (found.length === 2 ? comparison(found[0], found[1]) : others(found[0].job, signal))));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    both.replaceChildren(el("p", { class: "note", role: "alert" }, error.message)); // what was found stays
  }
  both.hidden = !both.childElementCount;
}

async function titleOf(id, signal) {
  try {
    return nameOf((await api(`jobs/${id}`, { signal })).upload);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return "Job";
  }
}
