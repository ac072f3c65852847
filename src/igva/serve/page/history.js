// The questions asked so far, picture by picture.

import { groupName, percent } from "./groups.js";

const section = document.getElementById("history");
const rows = document.getElementById("history-rows");

/**
 * An answered question.
 * @typedef {{question: string, answer: string, note: string, groups: number[][], names: string[] | null,
 *   weights: number[] | null}} Entry - names: of the groups, null where layers have numbers only; weights: null where
 *   the model has none
 */

export class History {
  /**
   * @param {(entry: Entry) => void} show - again, as question A
   * @param {(entry: Entry) => void} compare - as question B
   */
  constructor(show, compare) {
    this.show = show;
    this.compare = compare;
    this.pictures = new Map(); // data URL → entries, latest first
    this.entries = [];
  }

  turnTo(image) {
    if (!this.pictures.has(image)) this.pictures.set(image, []);
    this.entries = this.pictures.get(image);
  }

  add(entry) {
    this.entries.unshift(entry);
  }

  /** Draw the list; A and B are the entries on show. */
  draw(a, b) {
    section.hidden = this.entries.length < 2;
    const focused = [...rows.children].findIndex((row) => row.contains(document.activeElement));
    const place = (entry) => (entry === a ? "A" : entry === b ? "B" : "");
    rows.replaceChildren(...this.entries.map((entry) => this.row(entry, place(entry), Boolean(b))));
    rows.children[focused]?.querySelector(".entry").focus({ preventScroll: true });
  }

  row(entry, letter, comparing) {
    const item = document.createElement("li");
    const again = button("entry", () => this.show(entry));
    again.append(text("entry-question", entry.question), text("entry-answer", entry.answer || entry.note));
    const compare = button("quiet", () => this.compare(entry));
    compare.disabled = Boolean(letter);
    compare.textContent = !letter ? "Compare" : comparing ? `Shown as ${letter}` : "Shown";
    if (!letter) compare.setAttribute("aria-label", `Compare: ${entry.question}`);
    item.append(again, columns(entry), compare);
    return item;
  }
}

/** The mixture, as small as a word. */
function columns({ groups, names, weights }) {
  const chart = text("columns", "");
  if (!weights) return chart;
  const shares = groups.map((each, place) => `${groupName(each, names?.[place])} ${percent(weights[place])}`);
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", shares.join(", "));
  const most = Math.max(...weights);
  for (const weight of weights) {
    const column = text("column", "");
    column.style.setProperty("--share", weight / most);
    chart.append(column);
  }
  return chart;
}

function button(className, act) {
  const made = Object.assign(document.createElement("button"), { type: "button", className });
  made.addEventListener("click", act);
  return made;
}

function text(className, textContent) {
  return Object.assign(document.createElement("span"), { className, textContent });
}
