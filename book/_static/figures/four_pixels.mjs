// Four pixels and their cross-entropy: segedu.widgets.losses, chapter 06.
import { element, figure, label, svg } from "./controls.mjs";
import { say } from "./words.mjs";

export const TRUE_CLASS = [1, 0, 0, 1];

/** Probability of class 1, cross-entropy and gradient p - y of each pixel, from the logit of class 1. */
export function fourPixels(logits, trueClass = TRUE_CLASS) {
  const p = logits.map((z) => (z >= 0 ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / (1 + Math.exp(z))));
  const loss = logits.map((z, i) => {
    const u = trueClass[i] ? -z : z;
    return Math.max(u, 0) + Math.log1p(Math.exp(-Math.abs(u)));
  });
  return { p, loss, gradient: p.map((each, i) => each - trueClass[i]), mean: loss.reduce((a, b) => a + b) / 4 };
}

/** The four pixels with a number each, in colours of its sign and size; the title is text of the page. */
function map(title, numbers, most, below = () => []) {
  const drawing = svg("svg", { viewBox: "-1 -1 182 182" });
  numbers.forEach((number, i) => {
    const x = 90 * (i % 2);
    const y = 90 * Math.floor(i / 2);
    const share = Math.min(1, Math.abs(number) / most);
    const fill = number < 0 ? "#0072b2" : "#d55e00";
    drawing.append(
      svg("rect", { x, y, width: 90, height: 90, fill, "fill-opacity": 0.45 * share, stroke: "currentColor" }),
      label(x + 45, y + 50, number.toFixed(2), { "font-size": 25 }),
      ...below(x + 45, y + 76, i),
    );
  });
  return element("div", {}, title, drawing);
}

function draw(values) {
  const logits = [0, 1, 2, 3].map((i) => values[`pixel${i}`]);
  const found = fourPixels(logits);
  const truth = (x, y, i) => [label(x, y, say("true: {number}", { number: TRUE_CLASS[i] }), { "font-size": 19 })];
  const drawing = element(
    "div",
    { class: "live-maps" },
    map(say("logit of class {number}", { number: 1 }), logits, 8, truth),
    map(say("p of class {number}", { number: 1 }), found.p, 1),
    map(say("−log p of the true class"), found.loss, 8),
    map(say("gradient p − y"), found.gradient, 1),
  );
  const gradients = found.gradient.map((g) => g.toFixed(2)).join(say(", "));
  const sentence = say("Mean cross-entropy of the four pixels: {mean}. Gradients: {gradients}.", { mean: found.mean.toFixed(3), gradients });
  return { drawing, sentence };
}

/** Put the figure into its place. */
export function mount(place) {
  const start = [2, -1, 0.5, -3];
  const sliders = start.map((value, i) => [
    `pixel${i}`, { label: say("logit of pixel {number}, true class {truth}", { number: i, truth: TRUE_CLASS[i] }), value, min: -8, max: 8, step: 0.5 },
  ]);
  figure(place, Object.fromEntries(sliders), draw);
}
