/** The list of jobs: what the server knows, drawn anew every few seconds without losing the reader's place. */

import { api } from "./api.js";
import { el } from "./dom.js";
import { nameOf } from "./memory.js";
import { repeat } from "./repeat.js";
import { duration, moment } from "./words.js";

const BUSY = new Set(["queued", "running"]);

/** Whether a job is still to come to its end. */
export const isBusy = (job) => BUSY.has(job.state);

/** State of a job in a few words. */
export function stateText(job) {
  const share = Math.round(100 * (job.progress ?? 0));
  switch (job.state) {
    case "queued":
      return job.position ? `waiting, ${job.position} ahead` : "waiting, next in line";
    case "running":
      return `computing, ${share} %`;
    case "done":
      return `done${job.seconds ? ` in ${duration(job.seconds)}` : ""}`;
    default:
      return job.state;
  }
}

/** One row, which keeps its elements so that focus stays where it is. */
function jobRow(refresh) {
  const link = el("a", {});
  const [model, state, problem] = [el("td", { "data-name": "Model" }), el("td"), el("p", { class: "notice" })];
  const [created, expires] = [el("td", { class: "quiet", "data-name": "Sent" }), el("td", { class: "quiet", "data-name": "Kept until" })];
  const remove = el("button", { type: "button", class: "plain" });
  let last = null;
  remove.addEventListener("click", async () => {
    remove.disabled = true;
    try {
      await api(`jobs/${last.id}`, { method: "DELETE" });
      problem.textContent = "";
    } catch (error) {
      problem.textContent = error.message;
    }
    remove.disabled = false;
    refresh();
  });
  const element = el("tr", {}, el("th", { scope: "row" }, link, problem), model, state, created, expires, el("td", {}, remove));
  const update = (job) => {
    last = job;
    link.textContent = nameOf(job.upload);
    link.href = `#/jobs/${job.id}`;
    model.textContent = job.model;
    state.textContent = stateText(job);
    state.className = `state ${job.state}`;
    created.textContent = moment(job.created);
    expires.textContent = job.expires ? moment(job.expires) : "";
    remove.textContent = isBusy(job) ? "Cancel" : "Delete";
    remove.setAttribute("aria-label", `${remove.textContent} ${nameOf(job.upload)}, ${job.model}`);
  };
  return { element, update };
}

/** The list; it refreshes itself until `signal` ends it. */
export function jobList(signal) {
  const rows = new Map();
  const body = el("tbody");
  const empty = el("p", { class: "quiet" }, "None yet. Results stay for a while and are then removed; this list says until when.");
  const heading = el("h2", { id: "jobs-title", tabindex: "-1" }, "Jobs");
  const problem = el("p", { class: "quiet", hidden: true });
  const frame = el("div", { class: "scroll", hidden: true, role: "region", "aria-label": "Jobs", tabindex: "0" },
    el("table", { class: "stacked jobs" }, el("thead", {}, el("tr", {}, ["Scan", "Model", "State", "Sent", "Kept until", ""].map((name) => el("th", { scope: "col" }, name || el("span", { class: "visually-hidden" }, "Action"))))), body));

  const draw = (jobs) => {
    const known = new Set(jobs.map((job) => job.id));
    const gone = [...rows].filter(([id]) => !known.has(id));
    const focused = gone.some(([, row]) => row.element.contains(document.activeElement));
    for (const [id, row] of gone) {
      row.element.remove();
      rows.delete(id);
    }
    if (focused) (body.querySelector("button") ?? heading).focus();
    jobs.forEach((job, at) => {
      if (!rows.has(job.id)) rows.set(job.id, jobRow(() => refresh()));
      const row = rows.get(job.id);
      row.update(job);
      if (body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null);
    });
    frame.hidden = !jobs.length;
    empty.hidden = jobs.length > 0;
  };
  async function refresh() {
    try {
      draw(await api("jobs", { signal }));
      problem.hidden = true;
    } catch (error) {
      if (error.name === "AbortError") return;
      problem.hidden = false;
      problem.textContent = error.message;
    }
  }
  repeat(refresh, 2000, signal);
  return el("section", { "aria-labelledby": "jobs-title" }, heading, problem, empty, frame);
}
