/** Building elements. Text is always text: nothing here reads HTML, so a hostile name stays a name. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; a function among the attributes listens to the event of that name. */
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A square of a colour: set by a property, which a strict content security policy allows. */
export function swatch(colour) {
  const square = el("span", { class: "swatch", "aria-hidden": "true" });
  square.style.backgroundColor = colour;
  return square;
}

/** Say something to those who listen, politely: it waits until they are not interrupted. */
export function say(text) {
  const region = document.getElementById("spoken");
  if (region.textContent !== text) region.textContent = text;
}

/** A table inside a frame that scrolls on its own, reachable by keyboard; one of many columns is stacked on a narrow screen. */
export function table(caption, head, rows, numeric = []) {
  const align = (at) => (numeric.includes(at) ? "n" : null);
  const names = head.map((name, at) => el("th", { scope: "col", class: align(at) }, name));
  const body = rows.map(([first, ...others]) => el("tr", {}, el("th", { scope: "row" }, first), others.map((cell, at) => el("td", { class: align(at + 1), "data-name": head[at + 1] }, cell))));
  const frame = el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" });
  frame.append(el("table", { class: head.length > 3 ? "stacked" : null }, el("caption", {}, caption), el("thead", {}, el("tr", {}, names)), el("tbody", {}, body)));
  return frame;
}
