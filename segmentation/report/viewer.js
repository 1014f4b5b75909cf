"use strict";
// The viewer of volumes of the report and of the application.
//
//   const viewer = await SkipSegViewer.mount(element, {
//     image: { name, data, window?: [min, max] },                    // data: bytes of a .nii or .nii.gz file
//     masks: [{ name, data, labels: [{ value, name, colour }] }],    // colour: "#56b4e9"
//     mask?: 0,                                                      // which one is shown, null for none
//     scalars?: [{ name, data, range?: [low, high] }],               // maps such as uncertainty, off at first; clear below low
//     at?: [x, y, z],                                                // place of the crosshair in mm, towards right, anterior, superior
//     moved?: ([x, y, z]) => {},                                     // hears where the reader, not a program, moved the crosshair
//     library?: "/niivue.js",                                        // address of NiiVue; by default the block in the page
//   });
//   viewer.setOpacity(0.5); viewer.setMask(1); viewer.setClass(value, false); viewer.setScalar(0, true); viewer.setWindow(-160, 240);
//   viewer.setLayout("axial"); viewer.locate(x, y, z); viewer.focus(); viewer.dispose();
//
// Layouts are planes, axial, coronal, sagittal and render; the range of a scalar is 0.02 to 1 unless given.
// Where NiiVue or WebGL 2 is missing, a sentence in the element says so and the result is null: show slices instead.
globalThis.SkipSegViewer = (() => {
  const LAYOUTS = { planes: ["Planes", 3], axial: ["Axial", 0], coronal: ["Coronal", 1], sagittal: ["Sagittal", 2], render: ["3-D", 4] };
  const OPTIONS = {
    isRadiologicalConvention: true, multiplanarShowRender: 1, crosshairWidth: 0.3, crosshairColor: [0.3, 0.85, 0.55, 1],
    fontColor: [0.85, 0.85, 0.85, 1], backColor: [0, 0, 0, 1], loadingText: "", dragAndDropEnabled: false, dragMode: 0, logLevel: "silent",
  };
  const KEYS = "Arrow keys move the crosshair, Page Up and Page Down change the slice; in 3-D the arrow keys turn the volume.";
  // Voxel steps (right, anterior, superior) of the keys in each plane; radiological view: the patient's right is on the left.
  const STEPS = {
    axial: { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] },
    coronal: { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0] },
    sagittal: { ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [1, 0, 0], PageDown: [-1, 0, 0] },
  };
  const TURNS = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] };
  let mounted = 0;

  function make(tag, properties = {}, ...children) {
    const { role, label, ...rest } = properties;
    const element = Object.assign(document.createElement(tag), rest);
    if (role) element.setAttribute("role", role);
    if (label) element.setAttribute("aria-label", label);
    element.append(...children);
    return element;
  }

  // Colour of each label value as NiiVue wants it; hidden classes are transparent.
  function lookup(labels, hidden) {
    const most = Math.max(1, ...labels.map((label) => label.value));
    const lut = new Array(4 * (most + 1)).fill(0);
    const names = new Array(most + 1).fill("");
    for (const { value, name, colour } of labels) {
      const rgb = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
      lut.splice(4 * value, 4, ...rgb, hidden.has(value) ? 0 : 255);
      names[value] = name;
    }
    return { lut, min: 0, max: most, labels: names };
  }

  // Fractions of the volume at a place in mm: the inverse of NiiVue's matrix (columns first) from fractions to mm.
  function fractions(frac2mm, [x, y, z]) {
    const [a, b, c] = [0, 4, 8].map((start) => frac2mm.slice(start, start + 3));
    const shift = [x, y, z].map((value, axis) => value - frac2mm[12 + axis]);
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    const volume = dot(a, cross(b, c));
    return [dot(shift, cross(b, c)), dot(shift, cross(c, a)), dot(shift, cross(a, b))].map((part) => Math.min(1, Math.max(0, part / volume)));
  }

  class Viewer {
    #view; #options; #root; #place; #layout = "planes"; #mask = 0; #opacity = 0.5; #hidden = new Set(); #turn = [110, 10]; #boxed; #id;
    #placing = false;

    constructor(root, place, options) { [this.#root, this.#place, this.#options, this.#id] = [root, place, options, `skipseg-viewer-${++mounted}`]; }

    async start(stage) {
      const { image, masks = [], mask = 0, scalars = [], library, at } = this.#options;
      const [low, high] = image.window ?? [null, null];
      this.#mask = mask;
      const volumes = [
        { name: image.name, data: image.data, cal_min: low, cal_max: high },
        ...masks.map(({ name, data, labels }, index) => (
          { name, data, opacity: index === mask ? this.#opacity : 0, colormap_label: lookup(labels, this.#hidden) })),
        ...scalars.map(({ name, data, range: [clear, most] = [0.02, 1] }) => (
          { name, data, opacity: 0, colormap: "viridis", colormap_type: 1, cal_min: clear, cal_max: most })),
      ];
      const row = stage.clientWidth > 2 * stage.clientHeight;  // four pictures beside each other are larger than two by two
      const options = { ...OPTIONS, multiplanarLayout: row ? 3 : 2 };
      this.#view = await SkipSegNiiVue.host(stage, volumes, options, (message) => this.#hear(message), library);
      this.#listen(stage);
      this.#root.append(this.#bar());
      if (this.#flat) this.setLayout("axial");
      this.locate(...(at ?? this.#centre));
    }

    get #flat() { return this.#view.volumes[0].get("dims_ras")?.[3] === 1; }
    get #centre() {
      const matrix = this.#view.volumes[0].get("frac2mm");
      return [0, 1, 2].map((axis) => matrix[12 + axis] + (matrix[axis] + matrix[4 + axis] + matrix[8 + axis]) / 2);
    }
    get #masks() { return this.#options.masks ?? []; }

    setOpacity(opacity) { this.#opacity = Number(opacity); this.setMask(this.#mask); this.#show("opacity", opacity); }

    setMask(index) {
      this.#mask = index;
      this.#masks.forEach((_, each) => this.#fade(1 + each, each === index ? this.#opacity : 0));
      this.#refreshClasses();
    }

    setScalar(index, visible) { this.#fade(1 + this.#masks.length + index, visible ? 0.6 : 0); }

    setClass(value, visible) {
      visible ? this.#hidden.delete(value) : this.#hidden.add(value);
      this.#masks.forEach((mask, each) => this.#view.volumes[1 + each].change("colormap_label", lookup(mask.labels, this.#hidden)));
      this.#refreshClasses();
    }

    setWindow(min, max) {
      this.#view.volumes[0].set("cal_min", Number(min));
      this.#view.volumes[0].change("cal_max", Number(max));
      this.#show("level", (Number(min) + Number(max)) / 2);
      this.#show("width", max - min);
    }

    setLayout(layout) {
      this.#layout = layout;
      this.#view.draw({ sliceType: LAYOUTS[layout][1] });
      for (const button of this.#root.querySelectorAll("button[data-layout]")) button.ariaPressed = String(button.dataset.layout === layout);
    }

    locate(x, y, z) {
      this.#placing = true;
      this.#view.scene({ crosshairPos: fractions(this.#view.volumes[0].get("frac2mm"), [x, y, z]) });
      this.#step([0, 0, 0]);
      this.#placing = false;
    }

    focus() { this.#view.canvas.focus(); }

    dispose() { this.#view.end(); this.#place.replaceChildren(); }

    #fade(volume, opacity) {
      const model = this.#view.volumes[volume];
      if (model.get("opacity") !== opacity) model.change("opacity", opacity);
    }

    #step(voxels) { this.#view.message("move_crosshair_in_vox", ...voxels); }

    #hear({ event, data }) {
      const output = event === "location_change" && this.#root.querySelector("output");
      if (!output) return;
      if (!this.#placing) this.#options.moved?.(data.mm.slice(0, 3));
      const [right, anterior, superior] = data.mm.slice(0, 3).map((value) => value.toFixed(1));
      const found = data.values.find((value) => value.id === "volume0");
      output.textContent = `R ${right}  A ${anterior}  S ${superior} mm${found ? `, value ${Number(found.value.toPrecision(4))}` : ""}`;
    }

    // The keys are ours alone: NiiVue's own would change the layout behind the buttons, or act outside the picture.
    #listen(stage) {
      const { canvas } = this.#view;
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", `Volume ${this.#options.image.name}. ${KEYS}`);
      const capture = { capture: true };
      stage.addEventListener("keydown", (event) => {
        if (event.key === "Tab" || event.key === "Escape") return;
        event.stopPropagation();
        const turn = this.#layout === "render" && TURNS[event.key];
        const step = (STEPS[this.#layout] ?? STEPS.axial)[event.key];
        if (turn) this.#view.scene({ renderAzimuth: (this.#turn[0] += turn[0]), renderElevation: (this.#turn[1] += turn[1]) });
        else if (step) this.#step(step);
        if (turn || step) event.preventDefault();
      }, capture);
      stage.addEventListener("keyup", (event) => event.stopPropagation(), capture);
      stage.addEventListener("dblclick", (event) => event.stopPropagation(), capture);
      // The wheel moves through slices once the picture has the focus; before, it scrolls the page.
      stage.addEventListener("wheel", (event) => document.activeElement === canvas || event.stopPropagation(), capture);
    }

    #show(name, value) { const slider = this.#root.querySelector(`input[name=${name}]`); if (slider) slider.value = value; }

    #slider(name, text, [min, max, value], changed) {
      const step = (max - min) / 200;
      const input = make("input", { type: "range", name, min, max, step, value, oninput: () => changed(Number(input.value)) });
      return make("label", {}, make("span", { textContent: text }), input);
    }

    #bar() {
      const image = this.#view.volumes[0];
      const [low, high] = [image.get("cal_min") ?? 0, image.get("cal_max") ?? 1];
      const span = high - low || 1;
      const state = { level: (low + high) / 2, width: span };
      const apply = (change) => { Object.assign(state, change); this.setWindow(state.level - state.width / 2, state.level + state.width / 2); };
      const layouts = Object.entries(LAYOUTS).map(([layout, [text]]) => {
        const button = make("button", { type: "button", textContent: text, onclick: () => this.setLayout(layout) });
        button.dataset.layout = layout;
        button.ariaPressed = String(layout === this.#layout);
        return button;
      });
      return make("div", { className: "skipseg-bar", role: "group", label: "Viewer controls" },
        make("div", { className: "skipseg-layouts", role: "group", label: "Layout", hidden: this.#flat }, ...layouts),
        make("div", { className: "skipseg-sliders" },
          ...(this.#masks.length ? [this.#slider("opacity", "Overlay", [0, 1, this.#opacity], (value) => this.setOpacity(value))] : []),
          this.#slider("level", "Level", [low - span / 2, high + span / 2, state.level], (level) => apply({ level })),
          this.#slider("width", "Window", [span / 50, 2 * span, state.width], (width) => apply({ width }))),
        ...this.#choices(), make("div", { className: "skipseg-classes", role: "group", label: "Classes" }, ...this.#classes()),
        make("output", {}));
    }

    // Which mask is shown, where there are several, and check boxes of the further maps.
    #choices() {
      const chosen = (index, text) => make("label", {}, make("input", {
        type: "radio", name: `${this.#id}-mask`, checked: index === this.#mask, onchange: () => this.setMask(index),
      }), text);
      const further = (this.#options.scalars ?? []).map((scalar, index) => make("label", {}, make("input", {
        type: "checkbox", onchange: (event) => this.setScalar(index, event.target.checked),
      }), scalar.name));
      const masks = this.#masks.length > 1 ? [...this.#masks.map((mask, index) => chosen(index, mask.name)), chosen(null, "no mask")] : [];
      return [[masks, "radiogroup", "Mask"], [further, "group", "Maps"]].filter(([list]) => list.length)
        .map(([list, role, label]) => make("div", { className: "skipseg-choices", role, label }, ...list));
    }

    #classes() {
      this.#boxed = this.#masks[this.#mask]?.labels ?? [];
      return this.#boxed.map(({ value, name, colour }) => {
        const swatch = make("span", { className: "skipseg-swatch" });
        swatch.style.background = colour;
        const box = make("input", { type: "checkbox", checked: !this.#hidden.has(value), onchange: () => this.setClass(value, box.checked) });
        box.dataset.value = value;
        return make("label", {}, box, swatch, name);
      });
    }

    // Boxes are renewed when the mask changes and only set when a class does, so that the focus stays.
    #refreshClasses() {
      const group = this.#root.querySelector(".skipseg-classes");
      const shown = this.#masks[this.#mask]?.labels ?? [];
      if (shown !== this.#boxed) group?.replaceChildren(...this.#classes());
      for (const box of group?.querySelectorAll("input") ?? []) box.checked = !this.#hidden.has(Number(box.dataset.value));
    }
  }

  async function mount(element, options) {
    const stage = make("div", { className: "skipseg-stage" });
    const root = make("div", { className: "skipseg-viewer" }, stage);
    element.replaceChildren(root);
    const viewer = new Viewer(root, element, options);
    try {
      await viewer.start(stage);
      root.dataset.state = "ready";
      return viewer;
    } catch (error) {
      element.replaceChildren(make("p", { className: "skipseg-missing", role: "status", textContent: `Volumes cannot be shown here: ${error.message}.` }));
      return null;
    }
  }

  return { mount };
})();
