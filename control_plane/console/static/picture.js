// A caller's image with what two versions found on it.
import { el } from "./dom.js";
import { plural } from "./format.js";

/** `encoded` is base64 of the file; `stable` and `candidate` are answers of a Detect. */
export function picture({ encoded, stable, candidate }) {
  const canvas = el("canvas", { role: "img", "aria-label": `The stable version found ${plural(stable.detections.length, "object")}, the candidate ${candidate.detections.length}` });
  draw(canvas, encoded, [[stable.detections, "--m0", []], [candidate.detections, "--m1", [6, 4]]]);
  return el("figure", { className: "picture" }, canvas, el("figcaption", { className: "small muted" }, `stable ${names(stable)} · candidate ${names(candidate)}`));
}

const names = (answer) => answer.detections.map((one) => one.class_name).slice(0, 8).join(", ") || "nothing";

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
  for (const [detections, token, dash] of layers) {
    pen.strokeStyle = look.getPropertyValue(token);
    pen.lineWidth = Math.max(2, canvas.width / 300);
    pen.setLineDash(dash);
    for (const { box } of detections) if (box) pen.strokeRect(box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1);
  }
}
