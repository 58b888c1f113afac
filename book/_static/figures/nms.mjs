// Many boxes around few objects, thinned by NMS of three kinds: segedu.widgets.suppression, chapter 16.
import { GREEN, ORANGE, SKY, figure, label, legend, panel, panels, svg } from "./controls.mjs";
import { say } from "./words.mjs";

export const KINDS = ["all classes together", "class by class", "soft"];
const NAMES = { disc: ORANGE, square: SKY, triangle: GREEN };

/** The boxes found in the drawn picture: x1, y1, x2, y2 in pixels; their scores and classes. */
export const FOUND = {
  boxes: [
    [14, 24, 66, 76], [18, 22, 70, 74], [10, 30, 62, 80], [22, 34, 78, 84],
    [38, 26, 90, 78], [42, 22, 92, 76],
    [48, 40, 92, 84], [50, 38, 90, 80], [44, 38, 88, 88],
    [108, 30, 150, 72], [104, 34, 148, 74], [112, 26, 152, 64], [100, 50, 130, 90],
  ],
  scores: [0.96, 0.83, 0.71, 0.45, 0.9, 0.66, 0.81, 0.58, 0.37, 0.92, 0.62, 0.34, 0.22],
  labels: [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2],
};

/** Intersection over union of two boxes; nan of two without area. */
export function boxIou([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const intersection = Math.max(0, Math.min(ax2, bx2) - Math.max(ax1, bx1)) * Math.max(0, Math.min(ay2, by2) - Math.max(ay1, by1));
  return intersection / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection);
}

const bestFirst = (scores) => [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);

/** Indices of the boxes that no better kept box overlaps by more than the threshold; best first. */
export function nms(boxes, scores, threshold) {
  return batchedNms(boxes, scores, scores.map(() => 0), threshold);
}

/** `nms` within each class. */
export function batchedNms(boxes, scores, labels, threshold) {
  const kept = [];
  for (const i of bestFirst(scores)) {
    const isBeaten = kept.some((better) => labels[better] === labels[i] && boxIou(boxes[better], boxes[i]) > threshold);
    if (!isBeaten) kept.push(i);
  }
  return kept;
}

/** Indices and lowered scores: each taken box multiplies the others' scores by 1 - IoU above the threshold. */
export function softNmsLinear(boxes, scores, threshold, leastScore = 0.001) {
  const left = [...scores];
  const waits = new Set(scores.keys());
  const [kept, lowered] = [[], []];
  while (waits.size) {
    const best = [...waits].reduce((a, b) => (left[b] > left[a] ? b : a));
    if (left[best] < leastScore) break;
    kept.push(best);
    lowered.push(left[best]);
    waits.delete(best);
    for (const i of waits) {
      const iou = boxIou(boxes[best], boxes[i]);
      if (iou > threshold) left[i] *= 1 - iou;
    }
  }
  return [kept, lowered];
}

/** What is kept, best first, and its scores. */
export function thinned({ boxes, scores, labels }, threshold, kind) {
  if (kind === "soft") return softNmsLinear(boxes, scores, threshold);
  const groups = kind === "class by class" ? labels : scores.map(() => 0);
  const kept = batchedNms(boxes, scores, groups, threshold);
  return [kept, kept.map((i) => scores[i])];
}

function picture(title, chosen, scores) {
  const [names, colours] = [Object.keys(NAMES), Object.values(NAMES)];
  const object = (name, attributes) => svg(name, { ...attributes, "fill-opacity": 0.35, stroke: "currentColor", "stroke-opacity": 0.3 });
  const boxes = chosen.map((i) => {
    const [x1, y1, x2, y2] = FOUND.boxes[i].map((edge) => 2 * edge);
    const dash = ["none", "7 3", "2 3"][FOUND.labels[i]];
    return svg("rect", {
      x: x1, y: y1, width: x2 - x1, height: y2 - y1, fill: "none",
      stroke: colours[FOUND.labels[i]], "stroke-width": 2.5, "stroke-dasharray": dash,
    }, svg("title", {}, say(names[FOUND.labels[i]])));
  });
  const numbers = (scores ?? []).map((score, n) => {
    const [x1, y1] = FOUND.boxes[chosen[n]];
    return label(2 * x1 + 3, 2 * y1 + 14, score.toFixed(2), { "text-anchor": "start", class: "live-number" });
  });
  return panel(title, 320, 200,
    svg("rect", { width: 320, height: 200, fill: "none", stroke: "currentColor", "stroke-opacity": 0.4 }),
    object("circle", { cx: 80, cy: 100, r: 51, fill: ORANGE }),
    object("circle", { cx: 128, cy: 104, r: 51, fill: ORANGE }),
    object("rect", { x: 97, y: 81, width: 86, height: 86, fill: SKY }),
    object("path", { d: "M258 61L299 143H217z", fill: GREEN }),
    ...boxes, ...numbers);
}

function draw({ iou, kind, least }) {
  const before = [...FOUND.scores.keys()].filter((i) => FOUND.scores[i] >= least);
  const [all, lowered] = thinned(FOUND, iou, kind);
  const shown = [...all.keys()].filter((n) => lowered[n] >= least);
  const [kept, scores] = [shown.map((n) => all[n]), shown.map((n) => lowered[n])];
  const drawing = panels(
    picture(say("before: {number} boxes", { number: before.length }), before),
    picture(say("after: {number} boxes", { number: kept.length }), kept, scores),
    legend(NAMES),
  );
  const names = Object.keys(NAMES);
  const list = kept.map((i, n) => `${say(names[FOUND.labels[i]])} ${scores[n].toFixed(2)}`).join(say(", "));
  const counts = { kind: say(kind), iou: iou.toFixed(2), before: before.length, after: kept.length };
  const sentence = kept.length
    ? say("NMS, {kind}, threshold {iou}: {before} boxes before, {after} after, best first: {list}.", { ...counts, list })
    : say("NMS, {kind}, threshold {iou}: {before} boxes before, {after} after.", counts);
  return { drawing, sentence };
}

/** Put the figure into its place. */
export function mount(place) {
  figure(place, {
    iou: { label: say("IoU threshold"), value: 0.5, min: 0, max: 1, step: 0.05 },
    kind: { label: say("kind"), value: KINDS[0], options: KINDS },
    least: { label: say("least score"), value: 0.3, min: 0, max: 1, step: 0.05 },
  }, draw);
}
