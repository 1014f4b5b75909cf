// Buttons with data-volume="ID" open the case that the element with that id holds in the viewer of volumes.
(() => {
  const dialog = document.getElementById("viewer");
  const [title, note, place] = ["viewer-title", "viewer-note", "viewer-place"].map((id) => document.getElementById(id));
  let viewer = null;

  async function open(held, mask) {
    title.textContent = held.case;
    note.textContent = held.note;
    place.textContent = "Loading the volume …";
    dialog.showModal();
    const file = ({ data, ...rest }) => ({ ...rest, data: SkipSegNiiVue.bytes(data) });
    const opened = await SkipSegViewer.mount(place, { image: file(held.image), masks: held.masks.map(file), mask, at: held.masks[mask].at });
    if (!dialog.open) return opened?.dispose();
    viewer = opened;
    viewer?.focus();
  }

  for (const button of document.querySelectorAll("button[data-volume]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      open(JSON.parse(document.getElementById(button.dataset.volume).textContent), Number(button.dataset.mask));
    });
  }
  dialog.addEventListener("close", () => { viewer?.dispose(); viewer = null; });
  document.getElementById("viewer-close").addEventListener("click", () => dialog.close());
})();
