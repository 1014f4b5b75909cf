/** Two masks of one scan: sizes side by side, how far the masks agree, and what could be compared. */

import { api } from "./api.js";
import { el, swatch, table } from "./dom.js";
import { agreement, readNifti } from "./nifti.js";
import { number } from "./words.js";

/** The rows: classes that both models know by name and value. */
export async function comparison(one, other) {
  const shared = one.labels.filter((label) => other.labels.some((each) => each.name === label.name && each.value === label.value));
  const title = el("h2", {}, "Compared");
  if (one.job.upload !== other.job.upload) return [title, el("p", {}, "These are two scans; masks can be compared on the same scan only.")];
  if (!shared.length) return [title, el("p", {}, "The two models have no class in common.")];
  const masks = await Promise.all([readNifti(one.mask), readNifti(other.mask)]);
  const dice = agreement(masks[0], masks[1], shared.map((label) => label.value));
  const [sizeOf, unit] = measureOf(one, other, shared);
  const rows = shared.map((label) => {
    const [a, b] = [sizeOf(one, label), sizeOf(other, label)];
    return [el("span", {}, swatch(label.colour), label.name), number(a), number(b), number(b - a), dice ? (dice.get(label.value)?.toFixed(3) ?? "in neither") : "not on one grid"];
  });
  const head = ["Class", `${one.job.model}, ${unit}`, `${other.job.model}, ${unit}`, `Difference, ${unit}`, "Dice of the two"];
  return [title, table("Sizes, and agreement of the two masks", head, rows, [1, 2, 3, 4]), el("p", { class: "quiet" }, "The Dice says how far the two masks agree, not which of them is right.")];
}

/** Links to other finished jobs on the same scan, to see one beside this one; nothing where there are none. */
export async function others(job, signal) {
  const jobs = (await api("jobs", { signal })).filter((each) => each.upload === job.upload && each.id !== job.id && each.state === "done");
  if (!jobs.length) return [];
  const links = jobs.map((each) => el("li", {}, el("a", { href: `#/jobs/${job.id}+${each.id}` }, each.model)));
  return [el("h2", {}, "Compare"), el("p", { class: "quiet" }, "Side by side with what another model made of the same scan:"), el("ul", {}, links)];
}

/** What sizes are told in: mL where both have it, else voxels. */
function measureOf(one, other, labels) {
  const known = [one, other].every((each) => labels.every((label) => typeof each.job.volumes_ml[label.name] === "number"));
  return known ? [(each, label) => each.job.volumes_ml[label.name], "mL"] : [(each, label) => each.job.voxels[label.name] ?? 0, "pixels"];
}
