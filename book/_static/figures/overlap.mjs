// Two discs, their IoU and their Dice: segedu.widgets.overlap, chapter 08.
import { GREEN, GROUND, ORANGE, RED, SKY, figure, label, legend, panel, panels, svg } from "./controls.mjs";
import { say } from "./words.mjs";

export const SIDE = 48;
export const TRUE_RADIUS = 12;
const UNIT = 300 / SIDE;
const KINDS = { ground: GROUND, missed: ORANGE, "false alarm": SKY, hit: GREEN };

/** What kind each pixel is (0 ground, 1 missed, 2 false alarm, 3 hit), the counts, IoU and Dice. */
export function overlap(right, down, radius) {
  const places = Array.from({ length: SIDE }, (_, i) => i + 0.5 - SIDE / 2);
  const kinds = places.map((y) => places.map((x) => {
    const isTrue = y ** 2 + x ** 2 < TRUE_RADIUS ** 2;
    const isPredicted = (y - down) ** 2 + (x - right) ** 2 < radius ** 2;
    return Number(isTrue) + 2 * Number(isPredicted);
  }));
  const [, missed, falseAlarm, hit] = [0, 1, 2, 3].map((kind) => kinds.flat().filter((each) => each === kind).length);
  const either = missed + falseAlarm + hit;
  return { kinds, hit, missed, falseAlarm, either, iou: hit / either, dice: 2 * hit / (either + hit) };
}

/** Dice from IoU. */
export function diceFromIou(iou) {
  return 2 * iou / (1 + iou);
}

function discs(kinds, { right, down, radius }) {
  const runs = Object.values(KINDS).map((fill, kind) => {
    const d = kinds.flatMap((row, y) => row.map((each, x) => (each === kind ? `M${x} ${y}h1v1h-1z` : ""))).join("");
    return svg("path", { d, fill, "shape-rendering": "crispEdges" });
  });
  const place = { cx: SIDE / 2 + right, cy: SIDE / 2 + down };
  const rim = { fill: "none", stroke: "white", "stroke-width": 0.4, "stroke-dasharray": "1 0.8" };
  const grip = { r: Math.max(radius, 3), "fill-opacity": 0, class: "live-drag" };
  return svg("g", { transform: `scale(${UNIT})` }, ...runs,
    svg("circle", { ...place, r: radius, ...rim }), svg("circle", { ...place, ...grip }));
}

function curve({ iou, dice }) {
  const [x, y] = [(share) => 40 + 240 * share, (share) => 250 - 240 * share];
  const steps = Array.from({ length: 101 }, (_, i) => i / 100);
  const points = steps.map((each) => `${x(each)},${y(diceFromIou(each))}`).join(" ");
  const line = { fill: "none", stroke: "currentColor", "stroke-width": 2 };
  return [
    svg("rect", { x: x(0), y: y(1), width: 240, height: 240, fill: "none", stroke: "currentColor", "stroke-opacity": 0.4 }),
    svg("polyline", { points, ...line }),
    svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), ...line, "stroke-width": 1, "stroke-dasharray": "3 4" }),
    label(x(0.03), y(0.92), "2 IoU / (1 + IoU)", { "text-anchor": "start" }),
    label(x(0.62), y(0.5), say("equal"), { "text-anchor": "start" }),
    svg("circle", { cx: x(iou), cy: y(dice), r: 7, fill: RED, stroke: "currentColor" }),
    ...[0, 0.5, 1].flatMap((at) => [label(x(at), 268, String(at)), label(34, y(at) + 5, String(at), { "text-anchor": "end" })]),
    label(x(0.5), 290, say("IoU")),
    label(14, y(0.7), say("Dice"), { transform: `rotate(-90 14 ${y(0.7)})` }),
  ];
}

function draw(values) {
  const found = overlap(values.right, values.down, values.radius);
  const { hit, missed, falseAlarm, iou, dice } = found;
  const drawing = panels(
    panel(say("drag the dashed disc"), 300, 300, discs(found.kinds, values)),
    panel(say("Dice is never below IoU"), 300, 300, ...curve(found)),
    legend(KINDS),
  );
  const aside = say(values.right < 0 ? "{number} to the left" : "{number} to the right", { number: Math.abs(values.right) });
  const below = say(values.down < 0 ? "{number} up" : "{number} down", { number: Math.abs(values.down) });
  const scores = { hit, missed, falseAlarm, iou: iou.toFixed(2), dice: dice.toFixed(2) };
  const sentence = say("Predicted disc of radius {radius}, {aside} and {below}: ", { radius: values.radius, aside, below }) +
    say("hit {hit} pixels, missed {missed}, false alarm {falseAlarm}. IoU {iou}, Dice {dice}.", scores);
  return { drawing, sentence };
}

function moved(values, right, down) {
  return { right: Math.round(values.right + right / UNIT), down: Math.round(values.down + down / UNIT) };
}
moved.unit = UNIT;
moved.help = "The predicted disc; arrow keys move it by one pixel";

/** Put the figure into its place. */
export function mount(place) {
  figure(place, {
    right: { label: say("right"), value: 6, min: -24, max: 24 },
    down: { label: say("down"), value: 0, min: -24, max: 24 },
    radius: { label: say("radius"), value: 12, min: 0, max: 24 },
  }, draw, moved);
}
