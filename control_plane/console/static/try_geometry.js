// What an answer looks like on its image: shapes in pixels of the image, words, and what two answers share.
// Nothing here touches the page.
import { percent } from "./format.js";

/** A keypoint below it counts as hidden. */
const VISIBLE = 0.25;
/** The limbs of a person, pairs of COCO's 17 keypoints; points of other models are not joined. */
const PERSON = [[15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8], [7, 9], [8, 10], [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6]];
const SAME = 0.5;

const pairs = (flat) => Array.from({ length: Math.floor(flat.length / 2) }, (_, at) => [flat[2 * at], flat[2 * at + 1]]);

/** The corners of an object's box, going round: the rotated one where there is one. */
export function corners(found) {
  if (found.rotated_box) return pairs(found.rotated_box.corners);
  const { x_min, y_min, x_max, y_max } = found.box;
  return [[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]];
}

/** The mask as the data of an SVG path; empty: there is none. */
export function maskPath(found) {
  const parts = found.mask?.polygons?.parts || [];
  return parts.map((part) => `M${pairs(part.points).map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");
}

/** Keypoints that can be seen, and the lines between them. */
export function skeleton(found) {
  const all = found.keypoints || [];
  const seen = all.map((one) => one.visibility === undefined || one.visibility === null || one.visibility >= VISIBLE);
  const limbs = all.length === 17 ? PERSON.filter(([from, to]) => seen[from] && seen[to]).map(([from, to]) => [all[from], all[to]]) : [];
  return { points: all.filter((_, at) => seen[at]), limbs };
}

/** Where the name of an object begins: its upper left. */
export function labelPlace(found) {
  const round = corners(found);
  const y = Math.min(...round.map((one) => one[1]));
  return found.rotated_box ? round.find((one) => one[1] === y) : [found.box.x_min, y];
}

export function area({ box }) {
  return Math.max(0, box.x_max - box.x_min) * Math.max(0, box.y_max - box.y_min);
}

export const label = (found) => `${found.class_name} ${percent(found.confidence)}`;

/** All of an object in words. */
export function words(found) {
  const { x_min, y_min, x_max, y_max } = found.box;
  const said = [label(found), `x ${Math.round(x_min)} to ${Math.round(x_max)}, y ${Math.round(y_min)} to ${Math.round(y_max)}`];
  if (found.rotated_box) said.push(`turned by ${Math.round((found.rotated_box.rotation * 180) / Math.PI)}°`);
  if (found.keypoints?.length) said.push(`${skeleton(found).points.length} of ${found.keypoints.length} keypoints`);
  return said.join(", ");
}

export function overlap(one, other) {
  const width = Math.min(one.box.x_max, other.box.x_max) - Math.max(one.box.x_min, other.box.x_min);
  const height = Math.min(one.box.y_max, other.box.y_max) - Math.max(one.box.y_min, other.box.y_min);
  const shared = Math.max(0, width) * Math.max(0, height);
  return shared / (area(one) + area(other) - shared || 1);
}

/** Two lists of objects, each matched with the one of its class that it overlaps most, the surest first:
 * {shared, missing, extra}, the last two being objects of `base` and of `found`. */
export function compared(base, found) {
  const left = new Set(base);
  const extra = [];
  for (const one of found) {
    let best = null, most = SAME;
    for (const other of left) {
      const share = other.class_name === one.class_name ? overlap(one, other) : 0;
      if (share >= most) { best = other; most = share; }
    }
    if (best) left.delete(best); else extra.push(one);
  }
  return { shared: found.length - extra.length, missing: [...left], extra };
}
