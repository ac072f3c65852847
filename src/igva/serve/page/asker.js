// One question box with its answer and its bars. The page has one; in a comparison, two.

import { ask } from "./api.js";
import { Mixture } from "./mixture.js";

const LONG = 90; // characters from which an answer is set as running text

export class Asker {
  /**
   * @param {string} letter - "A" or "B"
   * @param {{answered: (entry: import("./history.js").Entry) => void, mixed: () => void,
   *   look: (layer: number) => void, end?: () => void}} tells - mixed: an answer's mixture came in
   */
  constructor(letter, tells) {
    const copy = document.getElementById("asker-template").content.cloneNode(true);
    const find = (selector) => copy.querySelector(selector);
    this.root = find(".asker");
    this.form = find(".ask");
    this.input = find("textarea");
    this.button = find(".ask button");
    this.ideas = find(".ideas");
    this.error = find(".error");
    this.result = find(".result");
    this.asked = find(".asked");
    this.answer = find(".answer");
    this.note = find(".note");
    this.mixture = new Mixture(find(".mixture"), tells.look);
    this.tells = tells;
    this.image = null;
    this.entry = null;
    this.running = null;
    find(".letter").textContent = letter;
    this.input.setAttribute("aria-label", `Question ${letter}`);
    if (tells.end) find(".end").addEventListener("click", tells.end);
    else find(".end").remove();
    this.listen();
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.running) this.running.abort();
      else this.submit();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
  }

  /** A new picture, and questions that suit it. */
  begin(image, ideas) {
    this.image = image;
    this.clear();
    this.ideas.replaceChildren(...ideas.map((idea) => this.idea(idea)));
  }

  /** Empty, as before the first question. */
  clear() {
    this.leave();
    this.entry = null;
    this.result.hidden = true;
    this.error.hidden = true;
    this.input.value = "";
  }

  /** An answer given before. */
  show(entry) {
    this.leave();
    this.display(entry);
  }

  idea(question) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: question });
    button.addEventListener("click", () => this.run(question));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  submit() {
    const question = this.input.value.trim();
    if (!question) {
      this.input.focus();
      return;
    }
    this.input.value = "";
    this.run(question);
  }

  /** Give up the answer that is being written. */
  leave() {
    this.running?.abort();
    this.running = null;
    this.busy(false);
  }

  async run(question) {
    this.leave();
    const running = (this.running = new AbortController());
    const entry = { question, answer: "", note: "", groups: [], names: null, weights: null };
    const current = () => this.running === running;
    this.error.hidden = true;
    this.busy(true);
    this.display(entry);
    try {
      const reason = await ask(
        { image: this.image, question, signal: running.signal },
        {
          mixture: (groups, names, weights) => {
            if (!current()) return;
            [entry.groups, entry.names, entry.weights] = [groups, names, weights];
            this.mix(entry);
          },
          text: (piece) => {
            if (!current()) return;
            entry.answer += piece;
            this.write(entry);
          },
        },
      );
      if (reason === "length") entry.note = "The answer was cut at the server's limit.";
    } catch (error) {
      if (!current()) return;
      if (error.name !== "AbortError") {
        this.fail(error.message, question);
        return;
      }
      entry.note = "Stopped.";
    }
    if (!current()) return;
    this.running = null;
    this.busy(false);
    this.display(entry);
    this.tells.answered(entry);
  }

  display(entry) {
    this.entry = entry;
    this.error.hidden = true;
    this.result.hidden = false;
    this.asked.textContent = entry.question;
    this.note.textContent = entry.note;
    this.write(entry);
    if (entry.groups.length) this.mix(entry);
  }

  mix(entry) {
    this.mixture.show(entry);
    this.tells.mixed();
  }

  write(entry) {
    this.answer.textContent = entry.answer.trim();
    this.answer.classList.toggle("long", entry.answer.length > LONG);
  }

  fail(message, question) {
    this.clear();
    this.input.value = question; // nothing typed is lost
    this.error.textContent = message;
    this.error.hidden = false;
  }

  busy(on) {
    this.button.textContent = on ? "Stop" : "Ask";
    this.button.classList.toggle("stop", on);
    this.answer.setAttribute("aria-busy", on); // read out once it is whole
    this.root.classList.toggle("busy", on);
  }
}
