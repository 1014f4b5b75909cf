/** The view that starts a job: a file, a model or two, and the list of jobs. */

import { api, upload } from "./api.js";
import { el, say } from "./dom.js";
import { jobList } from "./jobs.js";
import { rememberName } from "./memory.js";
import { modelChoice } from "./models.js";
import { bytes } from "./words.js";

const KINDS = ".nii,.nii.gz,.gz,.nrrd,.png,.tif,.tiff,.jpg,.jpeg,.zip";
const NAMES = { nifti: "NIfTI volume", nrrd: "NRRD volume", picture: "picture", dicom: "DICOM series" };

/** Area that takes files by drop, click or keyboard. */
function dropArea(take) {
  const field = el("input", { type: "file", id: "scan", accept: KINDS, "aria-describedby": "scan-kinds", click: () => { field.value = ""; }, change: () => field.files.length && take(field.files) });
  const area = el("div", { class: "drop" },
    el("label", { for: "scan" }, el("strong", {}, "Drop a scan here"), " or choose a file"), field,
    el("p", { class: "quiet", id: "scan-kinds" }, "NIfTI (.nii, .nii.gz), NRRD, a picture (.png, .tif, .jpg), or one DICOM series as .zip"));
  const over = (on) => (event) => {
    event.preventDefault();
    area.classList.toggle("over", on);
  };
  area.addEventListener("dragover", over(true));
  area.addEventListener("dragleave", over(false));
  area.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files);
  });
  return area;
}

/** Show a refusal where it happened, and read it out. */
function refuse(place, error) {
  if (error.name === "AbortError") return;
  const wait = error.retryAfter ? ` Please try again in ${error.retryAfter} s.` : "";
  place.replaceChildren(el("p", { class: "note", role: "alert" }, error.message + wait));
}

/** Why files are not even sent; nothing where one can be. */
function problemWith(files, most) {
  if (files.length !== 1) return "One file at a time, please; a DICOM series as one zip file.";
  if (files[0].size > most) return `This file has ${bytes(files[0].size)}, and the server takes up to ${bytes(most)}.`;
  return files[0].size ? "" : "This file is empty.";
}

/** Draw the view into `main`; `stop` ends what it started. */
export async function showSegment(main, signal) {
  const [models, health] = await Promise.all([api("models", { signal }), api("health", { signal })]);
  const state = { upload: null, sending: null };
  const sent = el("div", { class: "sent" });
  const refusal = el("div", { class: "refusal" });
  const go = el("button", { type: "submit", class: "primary", disabled: true }, "Segment");
  const uncertainty = el("input", { type: "checkbox", id: "uncertainty" });
  const choice = modelChoice(models, settle);

  function settle() {
    const many = choice.chosen().length;
    go.disabled = !state.upload || !many;
    go.textContent = many === 2 ? "Segment with both models" : "Segment";
  }

  async function take(files) {
    state.sending?.abort();
    const own = new AbortController();
    Object.assign(state, { sending: own, upload: null });
    choice.fit(null);
    refusal.replaceChildren();
    const problem = problemWith(files, health.upload_bytes);
    if (problem) return refuse(sent, new Error(problem));
    const [file] = files;
    const bar = el("progress", { max: 1, value: 0, "aria-label": "Sent to the server" });
    const stop = el("button", { type: "button", click: () => own.abort() }, "Stop");
    sent.replaceChildren(el("p", {}, el("b", { class: "file" }, file.name), ` (${bytes(file.size)})`), el("div", { class: "line" }, bar, stop));
    settle();
    try {
      const found = await upload(file, (share) => { bar.value = share; }, own.signal);
      rememberName(found.id, file.name);
      state.upload = found;
      sent.replaceChildren(el("p", {}, el("b", { class: "file" }, file.name), ` – ${NAMES[found.kind] ?? "scan"}, ${found.shape.join(" × ")} ${found.dims === 2 ? "pixels" : "voxels"}, ${bytes(found.size)}`));
      choice.fit(found);
      say(`${NAMES[found.kind] ?? "Scan"} received.`);
    } catch (error) {
      if (state.sending !== own) return;
      sent.replaceChildren();
      refuse(sent, error);
    }
    settle();
  }

  async function submit(event) {
    event.preventDefault();
    refusal.replaceChildren();
    go.disabled = true;
    const made = [];
    try {
      for (const model of choice.chosen()) made.push(await api("jobs", { method: "POST", json: { upload: state.upload.id, model, uncertainty: uncertainty.checked } }));
      location.hash = `#/jobs/${made.map((job) => job.id).join("+")}`;
    } catch (error) {
      await Promise.allSettled(made.map((job) => api(`jobs/${job.id}`, { method: "DELETE" })));
      refuse(refusal, error);
      settle();
    }
  }

  const form = el("form", { class: "start", submit },
    el("section", { class: "step", "aria-labelledby": "scan-title" }, el("h2", { id: "scan-title" }, "Scan"), dropArea(take), sent),
    choice.element,
    el("div", { class: "line" }, el("label", { class: "choice", for: "uncertainty" }, uncertainty, "Also map where the model is unsure"), go),
    refusal);
  main.replaceChildren(el("h1", { tabindex: "-1" }, "Segment a scan"), form, jobList(signal));
  settle();
}
