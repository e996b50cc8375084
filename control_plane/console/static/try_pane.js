// What one model answered about one picture: drawn on it, told in words, its time, and the same as code.
import { badge, el, facts, write } from "./dom.js";
import { ms, percent, plural, versionName } from "./format.js";
import { curl, python } from "./try_code.js";
import { compared, words } from "./try_geometry.js";
import { Overlay } from "./try_overlay.js";
import { waterfall } from "./try_waterfall.js";

const MAX_DRAWN = 1600, MAX_CLASSES = 10;

export class Pane {
  /** `model`: the reference that is asked; `remove`: takes it away. */
  constructor(model, pictureName) {
    this.model = model;
    this.head = el("span", { className: "muted" });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.said = el("p", { className: "said small" });
    this.overlay = new Overlay((one) => write(this.said, one ? words(one) : this.rest || ""));
    this.stage = el("div", { className: "stage" }, this.canvas, this.overlay.root);
    this.more = el("div");
    this.texts = { curl: el("code"), Python: el("code") };
    this.code = el("details", { hidden: true }, el("summary", {}, "The same by curl and Python"), Object.entries(this.texts).map(([name, text]) => snippet(name, text)));
    this.root = el("article", { className: "card pane", "aria-label": `${model} on ${pictureName}` },
      el("div", { className: "line" }, el("h4", {}, model), this.head), this.stage, this.said, this.more, this.code);
  }

  busy() {
    this.root.setAttribute("aria-busy", "true");
    if (!this.answer) this.head.replaceChildren(badge("asked", "note"));
  }

  /** `bitmap`: the picture, or null where the browser can't read it. `told`: {answer, measured in ms, asked: the
   * least confidence of the request}. */
  show(bitmap, told) {
    Object.assign(this, told, { failed: null });
    this.root.removeAttribute("aria-busy");
    const { image_width: width, image_height: height } = this.answer;
    const shrink = Math.min(1, MAX_DRAWN / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * shrink));
    this.canvas.height = Math.max(1, Math.round(height * shrink));
    if (bitmap) this.canvas.getContext("2d").drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.isSeen = Boolean(bitmap);
  }

  fail(error) {
    this.root.removeAttribute("aria-busy");
    this.answer = null;
    this.failed = error;
    this.head.replaceChildren();
    this.stage.hidden = this.said.hidden = this.code.hidden = true;
    this.more.replaceChildren(el("div", { className: "notice bad", role: "alert" }, error.reason ? `${error.message} (${error.reason})` : error.message));
  }

  /** The objects that are sure enough. */
  found(least) { return this.answer ? this.answer.detections.filter((one) => one.confidence >= least) : []; }

  /** Draws what is sure enough; `base`: the pane of the first model, with which this one is compared. */
  draw(least, base, request) {
    if (!this.answer) return;
    const { answer } = this, isWhole = answer.task === "classify";
    const found = this.found(least);
    const against = base && base !== this && base.answer && base.answer.task !== "classify" && !isWhole ? compared(base.found(least), found) : null;
    this.stage.hidden = this.said.hidden = this.code.hidden = false;
    const name = versionName(answer.version);
    this.overlay.draw(found, { width: answer.image_width, height: answer.image_height, name, marked: against?.extra });
    const drift = answer.drift?.missing || answer.drift?.extra ? badge("differs from the exact build", "warn") : null;
    this.head.replaceChildren(...[name === this.model ? null : badge(name), el("span", {}, isWhole ? answer.task : plural(found.length, "object"), `, ${ms(this.measured)}`), drift].filter(Boolean));
    this.rest = found.length ? tally(found) : isWhole ? "" : "Nothing is that sure.";
    write(this.said, this.rest);
    const key = JSON.stringify([answer.request_id, against && [against.shared, against.extra.length, against.missing.length]]);
    if (this.more.dataset.key !== key) {
      this.more.dataset.key = key;
      this.more.replaceChildren(...this.rows(answer, against, base));
    }
    write(this.texts.curl, curl({ ...request, model: this.model, task: answer.task }));
    write(this.texts.Python, python({ ...request, model: this.model, task: answer.task }));
  }

  rows(answer, against, base) {
    const rows = [];
    if (!this.isSeen) rows.push(el("p", { className: "small muted" }, "This browser can't show this kind of picture: the objects are drawn on an empty one."));
    if (answer.image_damage) rows.push(el("div", { className: "notice" }, answer.image_damage));
    if (answer.classification) rows.push(classes(answer.classification.top));
    if (against) rows.push(el("p", { className: "against" }, `Against ${base.model}: ${against.shared} the same, ${against.extra.length} only here (dashed), ${against.missing.length} missing`));
    rows.push(waterfall(answer.timing, this.measured), facts([["on", `${answer.worker}, ${answer.device}`], ["batch of", answer.batch_size > 1 ? answer.batch_size : ""],
      ["build", [answer.variant?.backend, answer.variant?.precision].filter(Boolean).join(" ")], ["image", `${answer.image_width} × ${answer.image_height}`], ["request", el("code", {}, answer.request_id)]]));
    return rows;
  }
}

/** "2 circle, 1 square": the classes by how many there are. */
function tally(found) {
  const by = new Map();
  for (const one of found) by.set(one.class_name, (by.get(one.class_name) || 0) + 1);
  return [...by].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name, count]) => `${count} ${name}`).join(", ");
}

function classes(top) {
  return el("ol", { className: "classes" }, top.slice(0, MAX_CLASSES).map((one) => {
    const bar = el("i");
    bar.style.width = `${100 * one.probability}%`;
    return el("li", {}, el("span", {}, one.class_name), el("span", { className: "track", "aria-hidden": "true" }, bar), el("span", { className: "n" }, percent(one.probability)));
  }));
}

function snippet(name, text) {
  const copied = el("span", { className: "small muted", role: "status" });
  const copy = el("button", { type: "button", className: "quiet", "aria-label": `Copy the ${name} code`, onclick: async () => write(copied, (await taken(text)) ? "copied" : "press Ctrl+C") }, "Copy");
  return el("div", {}, el("div", { className: "line" }, el("span", {}, name), copied, el("div", { className: "actions" }, copy)), el("pre", { tabindex: "0" }, text));
}

/** Puts a text on the clipboard, which pages have only over TLS and on this machine; elsewhere selects it. */
async function taken(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
