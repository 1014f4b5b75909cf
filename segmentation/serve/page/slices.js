/** Slice pictures: what is shown where the viewer cannot run (no WebGL 2, or no NiiVue in the installation). */

import { el, swatch } from "./dom.js";

/** Stored values between the 1st and 99th percentile, from at most 50,000 voxels. */
function windowOf(values) {
  const step = Math.max(1, Math.floor(values.length / 50000));
  const sample = Float64Array.from({ length: Math.floor(values.length / step) }, (_, at) => values[at * step]).filter(Number.isFinite).sort();
  const [low, high] = [sample[Math.floor(0.01 * sample.length)] ?? 0, sample[Math.floor(0.99 * (sample.length - 1))] ?? 1];
  return high > low ? [low, high] : [low, low + 1];
}

const rgbOf = (colour) => [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));

/** The slice that holds most of the mask; the middle one where there is none. */
function fullest({ size, values }) {
  const area = size[0] * size[1];
  let [best, most] = [Math.floor(size[2] / 2), 0];
  for (let z = 0; z < size[2]; z += 1) {
    let count = 0;
    for (let at = z * area; at < (z + 1) * area; at += 1) count += values[at] > 0;
    if (count > most) [best, most] = [z, count];
  }
  return best;
}

/** Paint one slice as radiologists look at it: the patient's right on the left, the front or the head at the top. */
function paint(canvas, scan, mask, range, shown, { z, opacity }) {
  const [width, height] = scan.size;
  const picture = new ImageData(width, height);
  const rightwards = scan.affine[0][0] > 0;
  const [, [, anterior], [, superior]] = scan.affine;
  const upwards = (Math.abs(anterior) >= Math.abs(superior) ? anterior : superior) >= 0;
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, to += 4) {
      const from = (rightwards ? width - 1 - x : x) + width * ((upwards ? height - 1 - y : y) + height * z);
      const colour = shown.get(mask.values[from]);
      for (let part = 0; part < 3; part += 1) {
        const grey = (255 * (scan.values[scan.rgb ? 3 * from + part : from] - range[0])) / (range[1] - range[0]);
        picture.data[to + part] = colour ? (1 - opacity) * Math.min(255, Math.max(0, grey)) + opacity * colour[part] : grey;
      }
      picture.data[to + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/**
 * Show a scan slice by slice with its mask over it.
 * @param {HTMLElement} element Where.
 * @param {{scan: object, mask: object, labels: {value: number, name: string, colour: string}[], moved: (z: number) => void}} what
 *   Volumes as of `readNifti`; `moved` hears which slice the reader chose.
 * @returns {{setSlice: (z: number) => void, first: number}}
 */
export function showSlices(element, { scan, mask, labels, moved }) {
  const [width, height, depth] = scan.size;
  const range = windowOf(scan.values);
  const shown = new Map(labels.map((label) => [label.value, rgbOf(label.colour)]));
  const canvas = el("canvas", { width, height, role: "img", "aria-label": "Slice of the scan with the mask over it" });
  canvas.style.aspectRatio = `${width * scan.spacing[0]} / ${height * scan.spacing[1]}`;
  const state = { z: 0, opacity: 0.5 };
  const draw = () => paint(canvas, scan, mask, range, shown, state);

  const place = el("output", {});
  const setSlice = (z) => {
    state.z = Math.min(depth - 1, Math.max(0, z));
    slider.value = String(state.z);
    place.textContent = `Slice ${state.z + 1} of ${depth}`;
    draw();
  };
  const slider = el("input", { type: "range", min: 0, max: depth - 1, step: 1, "aria-label": "Slice", input: () => { setSlice(slider.valueAsNumber); moved(state.z); } });
  const opacity = el("input", { type: "range", min: 0, max: 100, value: 50, input: () => { state.opacity = opacity.valueAsNumber / 100; draw(); } });
  const classes = labels.map((label) => {
    const box = el("input", { type: "checkbox", checked: true, change: () => {
      if (box.checked) shown.set(label.value, rgbOf(label.colour));
      else shown.delete(label.value);
      draw();
    } });
    return el("label", { class: "choice" }, box, swatch(label.colour), label.name);
  });
  const rail = depth > 1 ? el("label", { class: "slider" }, place, slider) : null;
  element.replaceChildren(el("div", { class: "slices" }, canvas, el("div", { class: "slice-bar" }, rail, el("label", { class: "slider" }, "Overlay", opacity), classes)));
  const first = fullest(mask);
  setSlice(first);
  return { setSlice, first };
}
