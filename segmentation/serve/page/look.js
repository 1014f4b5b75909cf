/** The scan with its mask: in the viewer of the report, or as slices where it cannot run. */

import { el } from "./dom.js";
import { middleOf, readNifti } from "./nifti.js";
import { showSlices } from "./slices.js";

const LIBRARY = "/static/niivue.js";

/** Voxels along an axis that this browser's viewer can draw; above it NiiVue drops the mask and reads colours as greys. */
function mostDrawn() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const most = gl?.getParameter(gl.MAX_3D_TEXTURE_SIZE) ?? Infinity; // without WebGL 2 the viewer says so itself
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return most;
}

/**
 * Show a scan and its mask, at the middle of what the mask marks.
 * @param {HTMLElement} place Where.
 * @param {{image: ArrayBuffer, mask: ArrayBuffer, uncertainty: ArrayBuffer | null, labels: object[], name: string}} what
 * @returns {Promise<{hear: (listener: (place: any) => void) => void, at: any, go: (place: any) => void, end: () => void}>} `at` is
 *   where it stands at first, `null` for no place in particular.
 */
export async function look(place, { image, mask, uncertainty, labels, name }) {
  const stage = el("div", { class: "volume" });
  place.replaceChildren(stage);
  const listeners = [];
  const found = { hear: (listener) => listeners.push(listener) };
  const moved = (to) => listeners.forEach((listener) => listener(to));
  const marked = await readNifti(mask);
  const at = middleOf(marked);
  const large = Math.max(...marked.size) > mostDrawn();
  const viewer = large ? null : await globalThis.SkipSegViewer?.mount(stage, {
    image: { name: "scan.nii.gz", data: image },
    masks: [{ name: `${name}.nii.gz`, data: mask, labels }],
    scalars: uncertainty ? [{ name: "Uncertainty", data: uncertainty }] : [],
    library: LIBRARY,
    moved,
    ...(at ? { at } : {}),
  });
  if (viewer) return { ...found, at, go: (to) => viewer.locate(...to), end: () => viewer.dispose() };
  const slices = el("div");
  if (large) stage.append(el("p", { class: "quiet" }, "This scan is larger than this browser's viewer can draw."));
  else if (!stage.childElementCount) stage.append(el("p", { class: "quiet" }, "The viewer of volumes is not installed on this server."));
  const [right, anterior, superior] = marked.affine.map((row) => Math.abs(row[0]));
  const facing = right > anterior && right > superior ? ", with the patient's right on the left" : "";
  const sides = marked.size[2] > 1 ? ` across the file's third axis${facing}` : "";
  stage.append(el("p", { class: "quiet" }, `Slices are shown instead${sides}.`), slices);
  const shown = showSlices(slices, { scan: await readNifti(image), mask: marked, labels, moved });
  return { ...found, at: shown.first, go: shown.setSlice, end: () => slices.remove() };
}

/** Let two views of one scan follow each other, from the place of the first one. */
export function link(one, other) {
  if (one.at !== null) other.go(one.at);
  one.hear(other.go);
  other.hear(one.go);
}
