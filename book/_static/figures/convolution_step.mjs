// The steps of a convolution and of a transposed one: segedu.widgets.convolutions, chapter 05.
import { RED, SKY, figure, label, panel, panels, svg } from "./controls.mjs";
import { say } from "./words.mjs";

const CONVOLUTION = "convolution";
const TRANSPOSED = "transposed convolution";
const LENGTHS = { [CONVOLUTION]: 7, [TRANSPOSED]: 4 };

const span = ({ kernel, dilation }) => dilation * (kernel - 1) + 1;
const square = (side, number) => Array.from({ length: side }, (_, i) => Array.from({ length: side }, (_, j) => number(i, j)));

/** How many places the kernel has along an axis, or how many outputs the transposed one makes. */
export function outputLength(length, layer, transposed = false) {
  if (transposed) return Math.max(0, (length - 1) * layer.stride - 2 * layer.padding + span(layer));
  const room = length + 2 * layer.padding - span(layer);
  return room < 0 ? 0 : Math.floor(room / layer.stride) + 1;
}

/** The pixels under the taps of one place, row by row. */
function tapsAt(row, column, { kernel, stride, dilation }) {
  return square(kernel, (i, j) => [row * stride + i * dilation, column * stride + j * dilation]).flat();
}

/** The place of a step, its taps in the padded picture, that picture, and all outputs. */
export function convolutionStep(layer, step, length) {
  const side = outputLength(length, layer);
  const last = Math.max(0, side * side - 1);
  const now = Math.min(step, last);
  const [row, column] = [Math.floor(now / side), now % side];
  const inside = (i) => i >= 0 && i < length;
  const padded = square(length + 2 * layer.padding, (r, c) => {
    const [i, j] = [r - layer.padding, c - layer.padding];
    return inside(i) && inside(j) ? i * length + j + 1 : 0;
  });
  const outputs = square(side, (r, c) => tapsAt(r, c, layer).reduce((sum, [i, j]) => sum + padded[i][j], 0));
  return { side, last, row, column, taps: tapsAt(row, column, layer), padded, outputs };
}

/** The input pixel of a step, the outputs under its taps (some cut off), and all outputs so far. */
export function transposedStep(layer, step, length) {
  const side = outputLength(length, layer, true);
  const last = length * length - 1;
  const now = Math.min(step, last);
  const outputs = square(side, () => 0);
  const placed = (pixel) => tapsAt(Math.floor(pixel / length), pixel % length, layer)
    .map(([i, j]) => [i - layer.padding, j - layer.padding]);
  for (let pixel = 0; pixel <= now; pixel += 1) {
    for (const [i, j] of placed(pixel)) if (i in outputs && j in outputs[i]) outputs[i][j] += pixel + 1;
  }
  const picture = square(length, (i, j) => i * length + j + 1);
  return { side, last, row: Math.floor(now / length), column: now % length, taps: placed(now), picture, outputs };
}

/** A panel of numbers in cells; the outer `rim` cells are padding, or are cut off. */
function cells(title, numbers, rim, framed) {
  const size = 288 / numbers.length;
  const frame = { width: size, height: size, fill: "none" };
  const grid = numbers.flatMap((row, i) => row.flatMap((number, j) => {
    const isRim = [i, j].some((at) => at < rim || at >= numbers.length - rim);
    const [x, y] = [6 + j * size, 6 + i * size];
    const ground = { ...frame, x, y, fill: SKY, "fill-opacity": isRim || number === null ? 0 : 0.2 };
    const line = { stroke: "currentColor", "stroke-opacity": 0.5, "stroke-dasharray": isRim ? "2 2" : "none" };
    const text = number === null ? [] : [label(x + size / 2, y + size * 0.64, String(number), { "font-size": Math.min(16, size * 0.5) })];
    return [svg("rect", { ...ground, ...line }), ...text];
  }));
  const frames = framed.map(([i, j]) => svg("rect", { ...frame, x: 6 + j * size, y: 6 + i * size, stroke: RED, "stroke-width": 3 }));
  return panel(title, 300, 300, ...grid, ...frames);
}

function drawConvolution({ step, ...layer }) {
  const found = convolutionStep(layer, step, LENGTHS[CONVOLUTION]);
  const { side, last, row, column, taps, padded, outputs } = found;
  const done = outputs.map((line, i) => line.map((sum, j) => (i * side + j <= row * side + column ? sum : null)));
  const drawing = panels(
    cells(say("taps of output ({row}, {column})", { row, column }), padded, layer.padding, taps),
    cells(say("outputs so far"), done, 0, [[row, column]]),
  );
  const places = say(side === 1 ? "{side} place a row" : "{side} places a row", { side });
  const numbers = { length: LENGTHS[CONVOLUTION], padding: layer.padding, span: span(layer), places };
  const at = { now: row * side + column, last, row, column, sum: outputs[row][column] };
  const sentence = say("{length} + 2 × {padding} pixels, span {span}: {places}. ", numbers) +
    say("Step {now} of 0 to {last}: output ({row}, {column}) is {sum}, the sum of the pixels under the taps.", at);
  return { drawing, sentence };
}

function drawTransposed({ step, ...layer }) {
  const { side, last, row, column, taps, picture, outputs } = transposedStep(layer, step, LENGTHS[TRANSPOSED]);
  const { padding } = layer;
  const length = picture.length;
  const whole = square(outputLength(length, { ...layer, padding: 0 }, true), (i, j) => outputs[i - padding]?.[j - padding] ?? null);
  const drawing = panels(
    cells(say("input pixel ({row}, {column})", { row, column }), picture, 0, [[row, column]]),
    cells(say("outputs so far"), whole, padding, taps.map(([i, j]) => [i + padding, j + padding])),
  );
  const made = say(side ? "{side} outputs a row" : "no output is left", { side });
  const sizes = { steps: length - 1, stride: layer.stride, span: span(layer), padding, made };
  const pixel = { now: row * length + column, last, row, column, number: picture[row][column] };
  const sentence = say("{steps} × {stride} + span {span} − 2 × {padding} cut off: {made}. ", sizes) +
    say("Step {now} of 0 to {last}: pixel ({row}, {column}) adds its {number} to every output under its taps.", pixel);
  return { drawing, sentence };
}

function draw({ kind, ...rest }) {
  return kind === CONVOLUTION ? drawConvolution(rest) : drawTransposed(rest);
}

function lastStep({ kind, ...layer }) {
  return kind === CONVOLUTION ? outputLength(LENGTHS[kind], layer) ** 2 - 1 : LENGTHS[kind] ** 2 - 1;
}

/** Put the figure into its place. */
export function mount(place) {
  figure(place, {
    kind: { label: say("kind"), value: CONVOLUTION, options: [CONVOLUTION, TRANSPOSED] },
    kernel: { label: say("kernel"), value: 3, min: 1, max: 4 },
    stride: { label: say("stride"), value: 1, min: 1, max: 3 },
    padding: { label: say("padding"), value: 0, min: 0, max: 2 },
    dilation: { label: say("dilation"), value: 1, min: 1, max: 2 },
    step: { label: say("step"), value: 0, min: 0, max: lastStep },
    back: { label: say("back"), press: ({ step }) => ({ step: step - 1 }) },
    on: { label: say("on"), press: ({ step }) => ({ step: step + 1 }) },
  }, draw);
}
