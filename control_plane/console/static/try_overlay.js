// Objects over their picture, as SVG in pixels of the image: hover and keyboard tell each one.
import { svg } from "./dom.js";
import { plural } from "./format.js";
import { area, corners, label, labelPlace, maskPath, skeleton, words } from "./try_geometry.js";

const COLOURS = 8, NAME_PX = 18, ROOM_PX = 16, RIGHT = 0.7;
const classes = new Map();

/** One colour for a class name, whatever model says it. */
function colourOf(name) {
  if (!classes.has(name)) classes.set(name, classes.size % COLOURS);
  return `o-m${classes.get(name)}`;
}

export class Overlay {
  /** `said` is called with an object that is pointed at or has the focus, or with null. */
  constructor(said) {
    this.said = said;
    this.shown = [];
    this.root = svg("svg", { class: "overlay", role: "group", preserveAspectRatio: "none" });
    this.root.addEventListener("keydown", (event) => this.move(event));
    // Lines are as wide on the screen, however large the image is.
    new ResizeObserver(() => this.scale()).observe(this.root);
  }

  /** `found`: the surest first. `marked`: those that another model did not find. */
  draw(found, { width, height, name, marked = [] }) {
    const had = this.shown.findIndex((one) => one.element === document.activeElement);
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.root.setAttribute("aria-label", `${plural(found.length, "object")} found by ${name}`);
    this.width = width;
    this.shown = found.map((one, at) => ({ one, element: this.object(one, at, marked.includes(one)) }));
    // What is small lies above, so that it can be pointed at.
    const order = [...this.shown].sort((a, b) => area(b.one) - area(a.one));
    this.root.replaceChildren(...order.map((each) => each.element));
    this.scale();
    if (had >= 0 && this.shown.length) this.focus(Math.min(had, this.shown.length - 1));
    else this.said(null);
  }

  scale() {
    const shown = this.root.clientWidth;
    if (!shown || !this.width) return;
    const pixel = this.width / shown;
    this.root.style.setProperty("--px", `${pixel}px`);
    this.root.classList.toggle("crowded", this.shown.length > shown / ROOM_PX);
    // A name that has no room above its object is in it; one at the right edge ends with it.
    for (const { one, element } of this.shown) element.classList.toggle("inside", labelPlace(one)[1] < NAME_PX * pixel);
  }

  object(one, at, isMarked) {
    const points = corners(one).map((each) => each.join(",")).join(" ");
    const [left, y] = labelPlace(one);
    const isRight = left > RIGHT * this.width;
    const x = isRight ? Math.min(this.width, Math.max(left, one.box.x_max)) : Math.max(0, left);
    const { points: dots, limbs } = skeleton(one);
    const mask = maskPath(one);
    const element = svg("g", { class: `object ${colourOf(one.class_name)}${isMarked ? " marked" : ""}`, role: "img", tabindex: at === 0 ? "0" : "-1", "aria-label": words(one) + (isMarked ? ", found by this model alone" : "") },
      mask ? svg("path", { class: "mask", d: mask }) : null,
      svg("polygon", { class: "under", points }), svg("polygon", { class: "line", points }),
      limbs.map(([from, to]) => svg("line", { class: "limb", x1: from.x, y1: from.y, x2: to.x, y2: to.y })),
      dots.map((dot) => svg("circle", { class: "dot", cx: dot.x, cy: dot.y })),
      svg("text", { x, y: Math.max(0, y), "text-anchor": isRight ? "end" : null, "aria-hidden": "true" }, label(one)));
    element.addEventListener("pointerenter", () => this.said(one));
    element.addEventListener("pointerleave", () => this.said(null));
    element.addEventListener("focus", () => this.said(one));
    element.addEventListener("blur", () => this.said(null));
    return element;
  }

  move(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -this.shown.length, End: this.shown.length };
    const at = this.shown.findIndex((one) => one.element === document.activeElement);
    if (!(event.key in steps) || at < 0) return;
    event.preventDefault();
    this.focus(Math.min(this.shown.length - 1, Math.max(0, at + steps[event.key])));
  }

  /** One stop of the Tab key a picture: the object that had the focus last. */
  focus(at) {
    this.shown.forEach((one, position) => one.element.setAttribute("tabindex", position === at ? "0" : "-1"));
    this.shown[at].element.focus();
  }
}
