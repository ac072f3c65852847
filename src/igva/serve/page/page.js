// The page: a picture, one question or two about it, and what they made of the layers.

import { modelName } from "./api.js";
import { Asker } from "./asker.js";
import { showDifference } from "./difference.js";
import { History } from "./history.js";
import { startIntake } from "./intake.js";
import { Maps } from "./maps.js";
import { wholeTrack } from "./mixture.js";
import { readPicture } from "./picture.js";

const element = (id) => document.getElementById(id);
const welcome = element("welcome");
const workspace = element("workspace");
const compare = element("compare");

const maps = new Maps((layer) => [a, b].forEach((asker) => asker.mixture.mark(layer)));
const a = new Asker("A", tells());
const b = new Asker("B", {
  ...tells(),
  end: () => {
    endComparison();
    compare.focus();
  },
});
const history = new History(
  (entry) => show(a, entry),
  (entry) => {
    startComparison();
    show(b, entry);
  },
);

element("askers").append(a.root, b.root);
element("another").addEventListener("click", () => turnTo(welcome, element("headline")));
compare.addEventListener("click", () => {
  startComparison();
  b.input.focus();
});
endComparison();
startIntake(takePicture, complain);
greet();

function tells() {
  return {
    look: (layer) => maps.look(layer),
    mixed: refreshMixtures,
    answered: (entry) => {
      history.add(entry);
      refresh();
    },
  };
}

async function greet() {
  try {
    element("model").querySelector("strong").textContent = await modelName();
    element("model").hidden = false;
  } catch (error) {
    complain(error.message);
  }
}

async function takePicture(file, ideas) {
  element("trouble").hidden = true;
  let image;
  try {
    image = await readPicture(file);
  } catch (error) {
    complain(error.message);
    return;
  }
  element("picture").src = image;
  endComparison();
  for (const asker of [a, b]) asker.begin(image, ideas);
  history.turnTo(image);
  maps.forget(image);
  refresh();
  turnTo(workspace, a.input);
}

function show(asker, entry) {
  asker.show(entry);
  refresh();
  asker.root.scrollIntoView({ block: "nearest" });
}

function refresh() {
  compare.hidden = !b.root.hidden || !a.entry;
  history.draw(a.entry, b.entry);
  refreshMixtures();
}

function refreshMixtures() {
  showDifference(a.entry, b.entry);
  const shown = [
    { letter: "A", ...a.entry },
    { letter: "B", ...b.entry },
  ].filter((each) => each.weights);
  if (shown.length === 1) shown[0].letter = "";
  if (!shown.length) return;
  const whole = wholeTrack(shown.map((each) => each.weights));
  for (const asker of [a, b]) asker.mixture.scale(whole);
  maps.group(shown.at(-1), shown);
}

function startComparison() {
  workspace.classList.add("comparing");
  b.root.hidden = false;
  refresh();
}

function endComparison() {
  workspace.classList.remove("comparing");
  b.clear();
  b.root.hidden = true;
  refresh();
}

function turnTo(view, focus) {
  welcome.hidden = view !== welcome;
  workspace.hidden = view !== workspace;
  focus.focus();
}

function complain(message) {
  element("trouble").textContent = message;
  element("trouble").hidden = false;
}
