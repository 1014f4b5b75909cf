"use strict";
// NiiVue without a notebook. The ipyniivue wheel packs NiiVue as the front end of a notebook widget (anywidget): a module
// whose default export takes a model to read settings from and to listen to. The models here live in the page.
const SkipSegNiiVue = (() => {
  let hosted = 0;

  // What anywidget asks of a model; what the front end would send to a kernel goes to `received`.
  class Model {
    #listeners = new Map();
    constructor(state, received = () => {}) { this.state = state; this.received = received; }
    get(key) { return this.state[key]; }
    set(key, value) { this.state[key] = value; }
    on(event, listener) { this.#listeners.set(event, (this.#listeners.get(event) ?? new Set()).add(listener)); }
    off(event, listener) { listener ? this.#listeners.get(event)?.delete(listener) : this.#listeners.delete(event); }
    send(message) { this.received(message); }
    save_changes() {}
    send_sync_message() {}   // with _comm_live: no copy of the voxels is sent anywhere
    get _comm_live() { return false; }
    emit(event, ...values) { for (const listener of this.#listeners.get(event) ?? []) listener(...values); }
    change(key, value) { this.set(key, value); this.emit(`change:${key}`); }
    message(type, ...data) { this.emit("msg:custom", { type, data }, []); }
  }

  const volumeModel = (id, { name, data, ...settings }) => new Model({
    id, name: /\.nii(\.gz)?$/.test(name) ? name : `${name}.nii.gz`, data: new Uint8Array(data).slice(), path: {}, url: null,
    paired_img_path: {}, paired_img_url: "", paired_img_data: null, opacity: 1, colormap: "gray", colormap_negative: "",
    colormap_type: 0, colormap_invert: false, colormap_label: null, colorbar_visible: false, frame_4d: 0, cal_min: null,
    cal_max: null, modulation_image: null, modulate_alpha: 0, ...settings,
  });

  const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

  const unpacked = (packed) =>
    new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

  // Each viewer imports its own copy, because the module keeps one NiiVue for all: from `url`, else from the block in the page.
  async function imported(url) {
    hosted += 1;
    if (url) return (await import(`${url}?${hosted}`)).default;
    const block = document.getElementById("skipseg-niivue");
    if (!block) throw new Error("NiiVue, which draws volumes, is not part of this page");
    const copy = URL.createObjectURL(new Blob([await unpacked(bytes(block.textContent))], { type: "text/javascript" }));
    try { return (await import(copy)).default; } finally { URL.revokeObjectURL(copy); }
  }

  // Draw volumes, the first below, into an element; `received` hears what NiiVue reports, such as a moved crosshair.
  async function host(element, volumes, options, received, url) {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser offers no WebGL 2");
    const front = await imported(url);
    const models = volumes.map((volume, index) => volumeModel(`volume${index}`, volume));
    const model = new Model({
      height: 0, volumes: models.map((each) => `IPY_MODEL_${each.get("id")}`), meshes: [], opts: options, graph: null, scene: null,
      background_masks_overlays: false, draw_lut: null, draw_opacity: 0, draw_fill_overwrites: true, overlay_outline_width: 0,
      overlay_alpha_shader: 1, this_model_id: "",
    }, received);
    model.widget_manager = { get_model: async (id) => models.find((each) => each.get("id") === id) };
    const ended = await front.initialize({ model });
    await front.render({ model, el: element });
    const canvas = element.querySelector("canvas");
    return {
      canvas,
      volumes: models,
      draw(options) { model.change("opts", { ...model.get("opts"), ...options }); model.message("draw_scene"); },
      scene(values) { model.change("scene", values); model.message("draw_scene"); },
      message: (...message) => model.message(...message),
      end() {
        model.change("volumes", []);   // its module lives as long as the page, and would keep the voxels
        document.createElement("div").append(canvas);   // NiiVue takes this for its end, and stops to listen to the window
        setTimeout(() => {             // once it has let go of its volumes
          ended();
          models.length = 0;
          model.received = () => {};
          canvas.getContext("webgl2").getExtension("WEBGL_lose_context")?.loseContext();
        });
        element.replaceChildren();
      },
    };
  }

  return { host, bytes };
})();
