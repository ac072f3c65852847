// Words and numbers about layer groups.

/** A group's own name, or by its numbers: `[1, 2, 3]` → "Layers 1–3". */
export function groupName(layers, name = null) {
  if (name) return name;
  if (layers.length === 1) return `Layer ${layers[0]}`;
  const run = layers.every((layer, place) => layer === layers[0] + place);
  return `Layers ${run ? `${layers[0]}–${layers.at(-1)}` : layers.join(", ")}`;
}

/** 0.3526 → "35.3%" */
export function percent(share) {
  return `${(share * 100).toFixed(1)}%`;
}

/** 0.0734 → "+7.3", with a true minus sign. */
export function points(change) {
  const rounded = (Math.abs(change) * 100).toFixed(1);
  if (rounded === "0.0") return rounded;
  return (change > 0 ? "+" : "−") + rounded;
}
