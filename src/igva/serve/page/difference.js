// What a second question changed in the mixture.

import { groupName, points } from "./groups.js";

const SMALLEST_SCALE = 0.05; // so that a change of a tenth of a point does not fill the chart

const root = document.getElementById("difference");
const words = document.getElementById("difference-words");
const rows = document.getElementById("difference-rows");

/** Show B less A; hide it where either has no answer, or their models mix nothing. */
export function showDifference(a, b) {
  const comparable = a?.weights && b?.weights && JSON.stringify(a.groups) === JSON.stringify(b.groups);
  root.hidden = !comparable;
  if (!comparable) return;
  const changes = a.weights.map((weight, place) => b.weights[place] - weight);
  words.textContent = sentence(a, changes);
  const scale = Math.max(SMALLEST_SCALE, ...changes.map(Math.abs));
  root.classList.toggle("named", Boolean(a.names));
  if (rows.children.length !== changes.length) rows.replaceChildren(...changes.map(row));
  changes.forEach((change, place) => {
    const [name, track, value] = rows.children[place].children;
    name.textContent = groupName(a.groups[place], a.names?.[place]);
    value.textContent = points(change);
    track.style.setProperty("--length", Math.abs(change) / scale);
    track.classList.toggle("down", change < 0);
  });
}

function row() {
  const item = document.createElement("li");
  item.append(...["name", "track", "value"].map((part) => {
    return Object.assign(document.createElement("span"), { className: `difference-${part}` });
  }));
  return item;
}

function sentence({ groups, names }, changes) {
  const most = changes.indexOf(Math.max(...changes));
  const least = changes.indexOf(Math.min(...changes));
  const name = (place) => names?.[place] ?? groupName(groups[place]).toLowerCase();
  const told = (place) => `${name(place)} (${points(changes[place])} points)`;
  if (points(changes[most]) === "0.0") return "Both questions mix the layers alike.";
  return `B takes more from ${told(most)} and less from ${told(least)}.`;
}
