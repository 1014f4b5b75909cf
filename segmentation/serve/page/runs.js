/** The run browser: studies and their runs, and the curves of one run, live while it trains. */

import { api, isPassing } from "./api.js";
import { lineChart } from "./chart.js";
import { el, table } from "./dom.js";
import { repeat } from "./repeat.js";
import { duration, number } from "./words.js";

const LIVE = new Set(["running", "waiting"]);
const FACTS = { study: "Study", condition: "Condition", fold: "Fold", seed: "Seed", dataset: "Data", patients: "Patients", parameters: "Parameters of the network", error: "Last error" };

const epochText = (run) => (run.epochs ? `${run.epoch} of ${run.epochs}` : String(run.epoch));

function runTable(study) {
  const rows = study.runs.map((run) => [
    el("a", { href: `#/runs/${encodeURIComponent(run.id)}` }, run.name),
    run.condition, String(run.fold), String(run.seed), el("span", { class: `state ${run.state}` }, run.state), epochText(run), number(run.val_dice),
  ]);
  return table(`Runs of ${study.name}`, ["Run", "Condition", "Fold", "Seed", "State", "Epochs", "Dice, last"], rows, [2, 3, 5, 6]);
}

/** What tells an element of the list that can have the focus from the others, also when it is drawn anew. */
const keyOf = (each) => each.getAttribute("href") ?? each.getAttribute("aria-label");

/** Draw the list of studies; it follows what happens in the folder. */
export async function showRuns(main, signal) {
  const place = el("div");
  const problem = el("p", { class: "note", role: "alert", hidden: true });
  let drawn = "";
  main.replaceChildren(el("h1", { tabindex: "-1" }, "Runs"), problem, place);
  await repeat(async () => {
    try {
      const studies = await api("studies", { signal });
      problem.hidden = true;
      const text = JSON.stringify(studies);
      if (text !== drawn) {
        drawn = text;
        const key = place.contains(document.activeElement) ? keyOf(document.activeElement) : null;
        const sections = studies.map((study) => el("section", {}, el("h2", {}, study.name), study.question ? el("p", { class: "quiet" }, study.question) : null, runTable(study)));
        const shifted = new Map([...place.querySelectorAll(".scroll")].map((each) => [keyOf(each), each.scrollLeft]));
        place.replaceChildren(...(sections.length ? sections : [el("p", { class: "quiet" }, "No runs: start the server with --runs DIR to see the studies in a folder.")]));
        for (const each of place.querySelectorAll(".scroll")) each.scrollLeft = shifted.get(keyOf(each)) ?? 0;
        if (key) [...place.querySelectorAll("a, .scroll")].find((each) => keyOf(each) === key)?.focus({ preventScroll: true });
      }
    } catch (error) {
      if (error.name === "AbortError") return false;
      problem.hidden = false;
      problem.textContent = error.message;
    }
    return true;
  }, 4000, signal);
}

/** Rows of a table of curves, each by the names of its columns. */
const rowsOf = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at]])));

function charts(rows) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const series = (name, title) => ({ name: title, points: rows.map((row) => [row.epoch, row[name]]) });
  const classes = columns.filter((name) => name.startsWith("val_dice_")).slice(0, 7);
  const several = classes.length > 1;
  const dice = [...(columns.includes("val_dice") ? [series("val_dice", several ? "mean" : "held-out cases")] : []), ...(several ? classes.map((name) => series(name, name.slice(9))) : [])];
  const loss = [series("train_loss", "training"), series("val_loss", "held-out cases")].filter(({ points }) => points.some((each) => Number.isFinite(each[1])));
  return [lineChart("Loss", "Epoch", loss), lineChart("Dice of held-out cases", "Epoch", dice), lineChart("Learning rate", "Epoch", [series("learning_rate", "learning rate")])];
}

const pairs = (entries) => el("dl", { class: "pairs" }, entries.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

/** What is known of a run besides its curves. */
function aboutRun(run) {
  const facts = Object.entries(FACTS).filter(([name]) => run[name] !== null && run[name] !== "").map(([name, title]) => [title, typeof run[name] === "number" ? run[name].toLocaleString("en-GB") : run[name]]);
  if (run.train_seconds !== null) facts.push(["Time of the training", duration(run.train_seconds)]);
  const settings = Object.entries(run.settings ?? {}).map(([name, value]) => [el("code", {}, name), JSON.stringify(value)]);
  return [el("h2", {}, "About this run"), pairs(facts), settings.length ? el("details", {}, el("summary", {}, "All settings"), pairs(settings)) : null].filter(Boolean);
}

/** Draw one run; its curves grow while it trains. */
export async function showRun(main, id, signal) {
  const heading = el("h1", { tabindex: "-1", class: "file" }, "…");
  const state = el("p", { class: "quiet" });
  const [curves, facts] = [el("div", { class: "charts" }), el("div", { class: "about" })];
  const path = `runs/${encodeURIComponent(id)}`;
  let [drawn, known] = ["", ""];
  const draw = async () => {
    const [run, points] = await Promise.all([api(path, { signal }), api(`${path}/curves`, { signal })]);
    heading.textContent = run.name;
    state.textContent = `${run.state}, epoch ${epochText(run)}${LIVE.has(run.state) ? "; the curves grow as the training goes on" : ""}`;
    if (JSON.stringify(points) !== drawn) curves.replaceChildren(...charts(rowsOf(points)));
    const told = JSON.stringify([run.settings, run.train_seconds, run.error]); // what changes with each epoch stands in `state`
    if (told !== known) facts.replaceChildren(...aboutRun(run));
    [drawn, known] = [JSON.stringify(points), told];
    return LIVE.has(run.state);
  };
  const goesOn = await draw(); // the heading has its name when it is shown
  main.replaceChildren(el("p", { class: "kicker" }, el("a", { href: "#/runs" }, "All runs")), heading, state, curves, facts);
  if (!goesOn) return;
  await repeat(async () => {
    try {
      return await draw();
    } catch (error) {
      if (error.name === "AbortError") return false;
      state.textContent = error.message;
      return isPassing(error);
    }
  }, 2000, signal);
}
