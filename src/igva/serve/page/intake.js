// The ways a picture comes in: chosen, dropped, pasted, or one of the examples.

import { address } from "./api.js";

const EXAMPLES = [
  {
    file: "word.png",
    alt: "The word ART on pink",
    ideas: ["Read the word in the image.", "What color is the background?"],
  },
  {
    file: "street.png",
    alt: "A bus, a helicopter and a bicycle",
    ideas: ["Is there a helicopter in the picture?", "Is the bicycle left or right of the helicopter?"],
  },
  {
    file: "shapes.png",
    alt: "Five coloured shapes on red",
    ideas: ["Is the star black?", "How many shapes are there?", "What color is the background?"],
  },
  {
    file: "cat.jpg",
    alt: "A cat that looks at you",
    ideas: ["What animal is this?", "What color is it?", "Is there a dog in the picture?"],
  },
];

/**
 * @param {(file: Blob, ideas: string[]) => void} take
 * @param {(message: string) => void} complain
 */
export function startIntake(take, complain) {
  const input = document.getElementById("file");
  input.addEventListener("change", () => {
    if (input.files[0]) take(input.files[0], []);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const file = firstPicture(event.clipboardData);
    if (!file) return; // words pasted into the question
    event.preventDefault();
    take(file, []);
  });
  listenForDrops(take, complain);
  offerExamples(take, complain);
}

function listenForDrops(take, complain) {
  const over = (on) => document.body.classList.toggle("dragging", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false); // null where the pointer leaves the window
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const file = firstPicture(event.dataTransfer);
    if (file) take(file, []);
    else complain("That was not a picture file.");
  });
}

function offerExamples(take, complain) {
  const list = document.getElementById("examples");
  for (const { file, alt, ideas } of EXAMPLES) {
    const source = address(`examples/${file}`);
    const picture = Object.assign(new Image(), { src: source, alt, width: 224, height: 224 });
    const button = document.createElement("button");
    button.type = "button";
    button.append(picture);
    button.addEventListener("click", async () => {
      const response = await fetch(source).catch(() => null);
      if (response?.ok) take(await response.blob(), ideas);
      else complain("The example cannot be loaded. Is the server still running?");
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}

function firstPicture(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
}
