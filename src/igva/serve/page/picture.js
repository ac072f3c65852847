// A file → a picture small enough to send.

const LONGEST = 1024; // pixels; towers see fewer
const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp"];
const MOST_BYTES = 3 * 2 ** 20;

/**
 * @param {Blob} file
 * @returns {Promise<string>} a data URL of the picture, its longest side at most 1024 pixels
 */
export async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("This file is not a picture that the browser can read. PNG, JPEG and WebP work.");
  }
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && SENT_AS_IS.includes(file.type) && file.size <= MOST_BYTES) return dataUrl(file);
  return dataUrl(await redraw(bitmap, scale, file.type === "image/jpeg" ? "image/jpeg" : "image/png"));
}

function redraw(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error("This file cannot be read.")));
    reader.readAsDataURL(blob);
  });
}
