// A caller's image with what two versions found on it.
import { el } from "./dom.js";
import { plural } from "./format.js";

/** `encoded` is base64 of the file; `stable` and `candidate` are answers of a Detect. */
export function picture({ encoded, stable, candidate }) {
  const found = [stable, candidate].map((answer) => answer?.detections || []);
  const canvas = el("canvas", { role: "img", "aria-label": `The stable version found ${plural(found[0].length, "object")}, the candidate ${found[1].length}` });
  draw(canvas, encoded, [[found[0], "--m0", []], [found[1], "--m1", [6, 4]]]);
  return el("figure", { className: "picture" }, canvas, el("figcaption", { className: "small muted" }, `stable ${names(found[0])} · candidate ${names(found[1])}`));
}

const names = (detections) => detections.map((one) => one.class_name).slice(0, 8).join(", ") || "nothing";

async function draw(canvas, encoded, layers) {
  const raw = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
  let image;
  try { image = await createImageBitmap(new Blob([raw])); } catch { canvas.hidden = true; return; }
  canvas.width = image.width;
  canvas.height = image.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  image.close();
  const look = getComputedStyle(document.documentElement);
  const width = Math.max(2, canvas.width / 200);
  for (const [detections, token, dash] of layers) {
    const boxes = detections.map((one) => one.box).filter(Boolean);
    // White beneath, so that it is seen on any picture.
    for (const [colour, line] of [["#ffffff", 2 * width], [look.getPropertyValue(token), width]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.setLineDash(colour === "#ffffff" ? [] : dash);
      for (const box of boxes) pen.strokeRect(box.x_min, box.y_min, box.x_max - box.x_min, box.y_max - box.y_min);
    }
  }
}
