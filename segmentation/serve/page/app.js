/** The page: which view is shown. The address after # says it, so that reloading comes back to the same place. */

import { Refusal } from "./api.js";
import { el } from "./dom.js";
import { showJobs } from "./job.js";
import { showRun, showRuns } from "./runs.js";
import { showSegment } from "./segment.js";

const VIEWS = [
  [/^#\/jobs\/([\w+-]+)$/, "Job", (main, match, signal) => showJobs(main, match[1].split("+").slice(0, 2), signal)],
  [/^#\/runs$/, "Runs", (main, match, signal) => showRuns(main, signal)],
  [/^#\/runs\/([\w.~%-]+)$/, "Run", (main, match, signal) => showRun(main, decodeURIComponent(match[1]), signal)],
  [/^/, "Segment", (main, match, signal) => showSegment(main, signal)],
];

let current = new AbortController();

/** Show the view that the address names; what the former one was doing ends. */
async function show(first) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const main = document.getElementById("main");
  const [pattern, title, draw] = VIEWS.find(([each]) => each.test(location.hash));
  document.title = `${title} · SkipSeg`;
  markCurrent();
  try {
    if (!first) focusHeading(main); // before drawing, for some views draw at once
    await draw(main, location.hash.match(pattern), signal);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (!(error instanceof Refusal)) console.error(error);
    const again = el("button", { type: "button", click: () => show(false) }, "Try again");
    main.replaceChildren(el("h1", { tabindex: "-1" }, "Nothing to show"), el("p", { class: "note", role: "alert" }, error.message), again);
  }
}

/** The heading of a new view gets the focus, once it is drawn. */
function focusHeading(main) {
  const old = main.querySelector("h1");
  const watcher = new MutationObserver(() => {
    const heading = main.querySelector("h1");
    if (!heading || heading === old) return;
    watcher.disconnect();
    heading.focus();
  });
  watcher.observe(main, { childList: true });
}

function markCurrent() {
  for (const link of document.querySelectorAll(".top nav a")) {
    const here = link.hash === "#/runs" ? location.hash.startsWith("#/runs") : link.hash === "#/" && !location.hash.startsWith("#/runs");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  document.getElementById("main").focus();
});
addEventListener("hashchange", () => show(false));
show(true);
