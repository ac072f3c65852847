// The bars: how much of each layer group went into an answer.

import { groupName, percent } from "./groups.js";

/** The share that a whole track stands for, so that bars of several answers can be compared. */
export function wholeTrack(mixtures) {
  return Math.max(...mixtures.flatMap((weights) => [2 / weights.length, ...weights]));
}

/** One bar chart; its bars stay and move when the question changes. */
export class Mixture {
  /**
   * @param {HTMLElement} root - holds a list and a line below it
   * @param {(layer: number) => void} look - a group's name was pressed: show where its layers look
   */
  constructor(root, look) {
    this.list = root.querySelector(".bars");
    this.note = root.querySelector(".fine");
    this.look = look;
    this.shape = "";
    this.layer = null;
  }

  /** @param {import("./history.js").Entry} entry */
  show({ groups, names, weights }) {
    const shape = JSON.stringify(weights ? [groups, names] : null);
    if (shape !== this.shape) this.build(weights ? groups : [], names);
    this.shape = shape;
    if (!weights) {
      this.note.textContent = "This model gives no layer weights.";
      return;
    }
    const even = 1 / groups.length;
    this.note.textContent = `The line marks an even mixture, ${percent(even)} each.`;
    [...this.list.children].forEach((row, place) => {
      row.querySelector(".bar-value").textContent = percent(weights[place]);
      row.style.setProperty("--share", weights[place]);
      row.style.setProperty("--even", even);
    });
  }

  /** @param {number} whole - the share that a whole track stands for */
  scale(whole) {
    this.list.style.setProperty("--whole", whole);
  }

  /** Mark where a layer belongs; null: none. */
  mark(layer) {
    this.layer = layer;
    for (const dot of this.list.querySelectorAll(".dot")) {
      dot.classList.toggle("marked", Number(dot.dataset.layer) === layer);
    }
    for (const row of this.list.children) row.classList.toggle("marked", Boolean(row.querySelector(".dot.marked")));
  }

  build(groups, names) {
    this.list.replaceChildren(...groups.map((layers, place) => this.row(layers, names?.[place])));
    this.mark(this.layer);
    this.list.offsetWidth; // lay the empty bars out, so that they grow from nothing
  }

  row(layers, own) {
    const row = document.createElement("li");
    row.className = "bar";
    const name = document.createElement("button");
    name.type = "button";
    name.className = "bar-name";
    name.textContent = groupName(layers, own);
    name.title = own ? `${groupName(layers)}: show what they look at` : "Show what these layers look at";
    name.addEventListener("click", () => this.look(layers[0]));
    const dots = span("dots", "");
    dots.setAttribute("aria-hidden", "true");
    for (const layer of layers) {
      const dot = span("dot", "");
      dot.dataset.layer = layer;
      dots.append(dot);
    }
    const track = span("bar-track", "");
    track.append(span("bar-fill", ""), span("bar-even", ""));
    row.append(name, dots, span("bar-value", ""), track);
    return row;
  }
}

function span(className, text) {
  return Object.assign(document.createElement("span"), { className, textContent: text });
}
