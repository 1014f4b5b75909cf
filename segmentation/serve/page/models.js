/** The models: a card for each with what it is for, and the choice of one, or of two to compare. */

import { el, say, swatch } from "./dom.js";
import { number } from "./words.js";

const MOST = 2;

/** Classes that are drawn, background left out. */
const classesOf = (model) => model.labels.filter((label) => label.value !== 0);

/** Dice of held-out patients with its interval, or that none is known. */
function scoreText(scores, name) {
  const dice = scores?.[name]?.dice;
  if (typeof dice?.estimate !== "number") return null;
  const range = typeof dice.low === "number" && typeof dice.high === "number" ? ` [${dice.low.toFixed(2)}, ${dice.high.toFixed(2)}]` : "";
  return `${dice.estimate.toFixed(2)}${range}${dice.n ? ` (${dice.n} ${dice.n === 1 ? "patient" : "patients"})` : ""}`;
}

/** What a model works on: axes, channels, and the distance of the voxels that it sees. */
function interfaceText({ dims, channels, spacing_mm: spacing }) {
  const own = dims === 2 && spacing.every((size) => size === 1);
  return `${dims}-D, ${channels.join(", ")}${own ? "" : `, works at ${spacing.map(number).join(" × ")} ${dims === 2 ? "pixels" : "mm"}`}`;
}

function card(model, box) {
  const classes = classesOf(model);
  const scored = classes.filter((label) => scoreText(model.scores, label.name));
  const facts = [
    ["Dice, held out", scored.length ? scored.map((label) => el("span", { class: "score" }, classes.length > 1 ? `${label.name} ` : "", scoreText(model.scores, label.name))) : "not stated"],
    ["Intended use", model.intended_use || "not stated"],
    ["Licence of its data", model.licence || "not stated"],
    ["Notice", model.notice],
  ];
  return el("li", { class: "card" },
    el("label", { class: "card-name", for: box.id }, box, el("span", {}, model.name)),
    el("p", { class: "unfit", id: `${box.id}-unfit` }),
    el("p", { class: "quiet" }, interfaceText(model)),
    el("ul", { class: "labels", "aria-label": `Classes of ${model.name}` }, classes.map((label) => el("li", {}, swatch(label.colour), label.name))),
    el("dl", { class: "facts-small" }, facts.filter(([, text]) => text).map(([term, text]) => [el("dt", {}, term), el("dd", {}, text)])));
}

/** Why a model cannot read an upload; nothing where it can. */
function misfit(model, scan) {
  if (scan.dims !== model.dims) return `Reads ${model.dims === 2 ? "pictures" : "volumes"}, and this scan is a ${scan.dims === 2 ? "picture" : "volume"}.`;
  if (scan.channels !== model.channels.length) return `Reads ${model.channels.length} channels (${model.channels.join(", ")}), and this scan has ${scan.channels}.`;
  return "";
}

/**
 * The choice of models.
 * @param {object[]} models From /api/models.
 * @param {() => void} changed Called when the choice changes.
 * @returns {{element: HTMLElement, chosen: () => string[], fit: (scan: object | null) => void}} `fit` leaves only those that can read an upload.
 */
export function modelChoice(models, changed) {
  const boxes = models.map((model, at) => el("input", {
    type: "checkbox", id: `model-${at}`, name: "model", value: model.name, "aria-describedby": `model-${at}-unfit`, change: () => { settle(); changed(); },
  }));
  const cards = models.map((model, at) => card(model, boxes[at]));
  const reasons = models.map(() => "");
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const settle = () => {
    boxes.forEach((box, at) => { box.checked = box.checked && !reasons[at]; });
    const full = chosen().length >= MOST;
    boxes.forEach((box, at) => {
      box.disabled = Boolean(reasons[at]) || (full && !box.checked);
      cards[at].classList.toggle("off", box.disabled);
      cards[at].classList.toggle("on", box.checked);
      cards[at].querySelector(".unfit").textContent = reasons[at];
    });
    if (full) say("Two models are chosen; they will be compared.");
  };
  const fit = (scan) => {
    models.forEach((model, at) => { reasons[at] = scan ? misfit(model, scan) : ""; });
    settle();
    const usable = boxes.filter((box) => !box.disabled);
    if (usable.length === 1 && !chosen().length) { usable[0].checked = true; settle(); }
    changed();
  };
  const hint = models.length > 1 ? "Choose one, or two to compare them on the same scan." : "";
  const element = el("fieldset", { class: "models" }, el("legend", {}, "Model"),
    models.length ? el("p", { class: "quiet" }, hint) : el("p", { class: "note" }, "There is no model in the folder that this server was given."),
    el("ul", { class: "cards" }, cards));
  return { element, chosen, fit };
}
