// What each layer looks at: its attention as a glow over the picture.

import { attention } from "./api.js";
import { groupName, percent } from "./groups.js";

const GLOW = [70, 240, 214];
const LIFT = 0.65; // below 1: what is looked at a little stays visible beside a peak
const ACROSS = 6; // small maps side by side, at most

const stage = document.getElementById("stage");
const glow = document.getElementById("glow");
const name = document.getElementById("stage-name");
const turn = document.getElementById("maps-switch");
const panel = document.getElementById("maps");
const strip = document.getElementById("strip");
const trouble = document.getElementById("maps-error");
const legend = document.getElementById("legend-note");

/** The switch, the strip of small maps, and the glow over the large picture. */
export class Maps {
  /** @param {(layer: number | null) => void} marked - told which layer is shown; null: none */
  constructor(marked) {
    this.marked = marked;
    this.groups = [];
    this.names = null;
    this.layer = 1;
    this.forget();
    turn.addEventListener("change", () => this.update());
  }

  /** A new picture. */
  forget(image = null) {
    this.image = image;
    this.shares = [];
    this.loaded = null;
    this.loading?.abort();
    this.loading = null;
    strip.replaceChildren();
    if (image) this.update();
  }

  /**
   * How the layers are grouped, and how much of each group is in the answers on show.
   *
   * @param {{groups: number[][], names: string[] | null}} mixed
   * @param {{letter: string, weights: number[]}[]} shares - letter: "" where there is one answer only
   */
  group({ groups, names }, shares) {
    const regrouped = JSON.stringify(groups) !== JSON.stringify(this.groups);
    [this.groups, this.names, this.shares] = [groups, names, shares];
    if (regrouped) this.build();
    else this.label();
  }

  /** Switch the maps on, at this layer. */
  look(layer) {
    this.layer = layer;
    turn.checked = true;
    this.update();
    stage.scrollIntoView({ block: "nearest" });
  }

  async update() {
    const on = turn.checked && Boolean(this.image);
    trouble.hidden = true;
    if (on && !this.loaded) await this.load();
    const shown = on && Boolean(this.loaded);
    panel.hidden = !shown;
    stage.classList.toggle("mapped", shown);
    if (shown) this.choose(this.layer);
    else this.unmark();
  }

  async load() {
    if (this.loading) return;
    const loading = (this.loading = new AbortController());
    name.textContent = "Reading the layers …";
    try {
      const loaded = await attention(this.image, loading.signal);
      if (this.loading !== loading) return;
      this.loaded = loaded;
      legend.textContent = `${loaded.what}; each layer on its own scale.`;
      this.build();
    } catch (error) {
      if (this.loading !== loading) return;
      trouble.textContent = error.message;
      trouble.hidden = false;
      turn.checked = false;
    }
    this.loading = null;
  }

  choose(layer) {
    const chosen = this.loaded.layers.find((each) => each.layer === layer) ?? this.loaded.layers[0];
    this.layer = chosen.layer;
    paint(glow, chosen.map);
    name.textContent = `Layer ${chosen.layer}${chosen.name ? ` (${chosen.name})` : ""}`;
    const radio = strip.querySelector(`input[value="${chosen.layer}"]`);
    if (radio) radio.checked = true;
    this.marked(chosen.layer);
  }

  unmark() {
    name.textContent = "";
    this.marked(null);
  }

  build() {
    if (!this.loaded) return;
    this.common = shared(this.loaded.layers.map((each) => each.name ?? ""));
    const left = new Map(this.loaded.layers.map((each) => [each.layer, each]));
    const blocks = this.groups.map((layers) => {
      const found = layers.filter((layer) => left.has(layer)).map((layer) => left.get(layer));
      for (const { layer } of found) left.delete(layer);
      return this.block(found, true);
    });
    if (left.size) blocks.push(this.block([...left.values()], false));
    strip.replaceChildren(...blocks);
    this.label();
  }

  block(layers, grouped) {
    const block = document.createElement("div");
    block.className = "block";
    const row = document.createElement("div");
    row.className = "thumbs";
    row.append(...layers.map((each) => this.thumb(each)));
    block.append(row);
    block.style.setProperty("--across", Math.min(ACROSS, layers.length));
    if (grouped) block.append(Object.assign(document.createElement("p"), { className: "bracket" }));
    return block;
  }

  thumb({ layer, map, name: own }) {
    const label = document.createElement("label");
    label.className = "thumb";
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "layer", value: layer });
    radio.addEventListener("change", () => this.choose(layer));
    const frame = Object.assign(document.createElement("span"), { className: "thumb-frame" });
    const canvas = document.createElement("canvas");
    paint(canvas, map);
    frame.append(Object.assign(new Image(), { src: this.image, alt: "" }), canvas);
    const short = own?.slice(this.common.length) ?? layer;
    const number = Object.assign(document.createElement("span"), { className: "thumb-number", textContent: short });
    if (own) label.title = own;
    const word = Object.assign(document.createElement("span"), { className: "visually-hidden", textContent: "Layer " });
    number.prepend(word);
    label.append(radio, frame, number);
    return label;
  }

  label() {
    strip.querySelectorAll(".bracket").forEach((bracket, place) => {
      const lines = this.shares.map(({ letter, weights }) => {
        return line(`${letter} ${percent(weights[place])}`, weights[place]);
      });
      const name = groupName(this.groups[place], this.names?.[place]);
      bracket.replaceChildren(...(lines.length ? lines : [line(name, 0)]));
    });
  }
}

function line(text, share) {
  const made = Object.assign(document.createElement("span"), { textContent: text.trim() });
  made.style.setProperty("--share", share);
  return made;
}

/** The encoder's name with its dot, where all layers are of one: there is no room for it under a small map. */
function shared(names) {
  const first = names[0]?.slice(0, names[0].indexOf(".") + 1) ?? "";
  return names.every((each) => each.startsWith(first)) ? first : "";
}

/** One pixel per patch; the style sheet stretches it over the padded square. */
function paint(canvas, map) {
  canvas.width = map[0].length;
  canvas.height = map.length;
  const pixels = new ImageData(canvas.width, canvas.height);
  map.flat().forEach((value, place) => pixels.data.set([...GLOW, Math.round(240 * value ** LIFT)], 4 * place));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}
