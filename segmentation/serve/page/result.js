/** What a finished job found: the mask over the scan, sizes, everything to know about it, and files to keep. */

import { api } from "./api.js";
import { el, swatch, table } from "./dom.js";
import { look } from "./look.js";
import { nameOf } from "./memory.js";
import { moment, number, sentence } from "./words.js";

const FORMATS = {
  nifti: { name: "NIfTI", ending: ".nii.gz" },
  "dicom-seg": { name: "DICOM SEG", ending: ".dcm" },
  png: { name: "PNG", ending: ".png" },
};
const COLOURS = ["#d55e00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#e69f00", "#0072b2"];
const ENDED = { failed: "This job failed", cancelled: "This job was cancelled" };

/** Sizes of the classes: mL for volumes, pixels for pictures. */
function sizes(job, labels) {
  const inMl = Object.values(job.volumes_ml).some((volume) => volume !== null);
  const rows = Object.entries(job.voxels).map(([name, count]) => {
    const label = labels.find((each) => each.name === name);
    const named = el("span", {}, label ? swatch(label.colour) : null, name);
    return [named, ...(inMl ? [number(job.volumes_ml[name])] : []), count.toLocaleString("en-GB")];
  });
  return table("Size of each class", inMl ? ["Class", "Volume, mL", "Voxels"] : ["Class", "Pixels"], rows, [1, 2]);
}

/** Warnings and steps: nothing that was done to the mask stays unsaid. */
function notes({ warnings, steps }) {
  return el("div", { class: "notes" },
    warnings.length ? el("div", { class: "note" }, el("h3", {}, "Warnings"), el("ul", {}, warnings.map((text) => el("li", {}, text)))) : el("p", { class: "quiet" }, "No warnings."),
    steps === null ? null : steps.length ? [el("h3", {}, "Done to the mask after the network"), el("ul", { class: "steps" }, steps.map((text) => el("li", {}, text)))]
      : el("p", { class: "quiet" }, "Nothing was done to the mask after the network."));
}

/** Buttons that fetch the mask with the token and hand it to the browser as a file. */
function downloads(job) {
  const problem = el("p", { class: "notice", role: "alert" });
  const stem = nameOf(job.upload).replace(/\.(nii\.gz|[^.]+)$/i, "");
  const fetchAs = (format) => async (event) => {
    event.target.disabled = true;
    try {
      const answer = await api(`jobs/${job.id}/result?format=${format}`, { as: "answer" });
      const address = URL.createObjectURL(await answer.blob());
      el("a", { href: address, download: `${stem}_${job.model.replaceAll("/", "-")}${FORMATS[format].ending}` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60000);
      problem.textContent = "";
    } catch (error) {
      problem.textContent = error.message;
    }
    event.target.disabled = false;
  };
  const buttons = job.formats.filter((format) => format in FORMATS).map((format) => el("button", { type: "button", click: fetchAs(format) }, `Download ${FORMATS[format].name}`));
  return el("div", { class: "downloads" }, el("div", { class: "line" }, buttons), problem);
}

/** The three volumes of the viewer; the scan is fetched once for all jobs of an upload. */
async function volumesOf(job, images, signal) {
  const bytes = (what) => api(`jobs/${job.id}/${what}`, { as: "bytes", signal });
  if (!images.has(job.upload)) images.set(job.upload, bytes("image"));
  const wanted = [images.get(job.upload), bytes("mask"), job.has_uncertainty ? bytes("uncertainty") : null];
  const [image, mask, uncertainty] = await Promise.all(wanted);
  return { image, mask, uncertainty };
}

/** Classes of the mask as the job knew them, each in its colour; the model may be another by now, or gone. */
function labelsOf({ labels }) {
  const inOrder = Object.entries(labels).sort((one, other) => one[1] - other[1]);
  return inOrder.map(([name, value], at) => ({ name, value, colour: COLOURS[at % COLOURS.length] }));
}

/**
 * Draw what a job that has come to its end found.
 * @returns {Promise<object | null>} `{job, labels, mask, view}` of a job that is done.
 */
export async function findings(job, images, place, signal) {
  if (job.state !== "done") {
    place.replaceChildren(el("p", { class: "note" }, sentence(ENDED[job.state], job.error)));
    return null;
  }
  const labels = labelsOf(job);
  const stage = el("div", { class: `stage ${job.kind}` }, el("p", { class: "quiet" }, "Loading the scan …"));
  const until = job.expires ? el("p", { class: "quiet" }, `Kept until ${moment(job.expires)}.`) : null;
  place.replaceChildren(stage, sizes(job, labels), notes(job), downloads(job), until);
  try {
    const volumes = await volumesOf(job, images, signal);
    const view = await look(stage, { ...volumes, labels, name: job.model });
    if (signal.aborted) view.end();
    else signal.addEventListener("abort", view.end, { once: true });
    return { job, labels, mask: volumes.mask, view };
  } catch (error) {
    if (error.name !== "AbortError") stage.replaceChildren(el("p", { class: "note", role: "alert" }, error.message));
    return null;
  }
}
