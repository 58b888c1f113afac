// Where RoIPool and RoIAlign look for the features of a box: segedu.widgets.sampling, chapter 18.
import { BLUE, RED, figure, label, panel, panels, svg } from "./controls.mjs";
import { say } from "./words.mjs";

export const CELLS = 8;
const UNIT = 36;

/** Row and column of every sample of RoIAlign, in cells from the outer corner of the map. */
export function sampledPlaces([x1, y1, x2, y2], bins, samples, aligned) {
  const [least, late] = aligned ? [0, 0] : [1, 0.5];
  const number = bins * samples;
  const along = (low, high) => Array.from({ length: number }, (_, i) => (
    low + late + Math.max(high - low, least) * ((i + 0.5) / number)
  ));
  return along(y1, y2).flatMap((row) => along(x1, x2).map((column) => [row, column]));
}

/** The whole cells that RoIPool takes for a box: from the first to the last, both included. */
export function roundedBox(box) {
  const [x1, y1, x2, y2] = box.map((edge) => Math.floor(edge + 0.5));
  return [x1, y1, Math.max(x2, x1) + 1, Math.max(y2, y1) + 1];
}

/** Where a part of a side begins and ends; with `whole`, at whole cells that hold it. */
export function part(low, high, which, parts, whole) {
  const step = (high - low) / parts;
  const [start, end] = [which * step, (which + 1) * step];
  return whole ? [low + Math.floor(start), low + Math.ceil(end)] : [low + start, low + end];
}

/** The cells to both sides of a place along one axis, each with its weight. */
export function neighbours(at) {
  const fromFirst = Math.min(Math.max(at - 0.5, 0), CELLS - 1);
  const low = Math.floor(fromFirst);
  const share = fromFirst - low;
  return share ? [[low, 1 - share], [low + 1, share]] : [[low, 1]];
}

function rectangle([x1, y1, x2, y2], attributes) {
  const place = { x: UNIT * x1, y: UNIT * y1, width: UNIT * (x2 - x1), height: UNIT * (y2 - y1) };
  return svg("rect", { ...place, fill: "none", ...attributes });
}

function map(box) {
  const grid = Array.from({ length: CELLS + 1 }, (_, i) => `M0 ${UNIT * i}H${UNIT * CELLS}M${UNIT * i} 0V${UNIT * CELLS}`).join("");
  const every = Array.from({ length: CELLS * CELLS }, (_, i) => [Math.floor(i / CELLS), i % CELLS]);
  const centres = every.map(([row, column]) => `M${UNIT * (column + 0.5)} ${UNIT * (row + 0.5)}h0`).join("");
  return [
    svg("path", { d: grid, stroke: "currentColor", "stroke-opacity": 0.25 }),
    svg("path", { d: centres, stroke: "currentColor", "stroke-opacity": 0.4, "stroke-width": 4, "stroke-linecap": "round" }),
    rectangle(box, { stroke: RED, "stroke-width": 3 }),
  ];
}

function drawBins([x1, y1, x2, y2], bins, whole) {
  const style = whole ? { fill: BLUE, "fill-opacity": 0.2 } : { "stroke-dasharray": "3 3" };
  return Array.from({ length: bins * bins }, (_, i) => {
    const [left, right] = part(x1, x2, i % bins, bins, whole);
    const [top, bottom] = part(y1, y2, Math.floor(i / bins), bins, whole);
    return rectangle([left, top, right, bottom], { stroke: BLUE, "stroke-width": 2, ...style });
  });
}

function counted(number, aligned) {
  if (aligned) return say(number === 1 ? "{number} sample" : "{number} samples", { number });
  return say(number === 1 ? "{number} sample, all half a cell off" : "{number} samples, all half a cell off", { number });
}

function draw({ left, top, width, height, bins, samples, aligned }) {
  const box = [left, top, left + width, top + height];
  const rounded = roundedBox(box);
  const off = Math.max(...box.map((edge, i) => Math.abs(edge - rounded[i])));
  const places = sampledPlaces(box, bins, samples, aligned);
  const dots = places.map(([row, column]) => svg("circle", { cx: UNIT * column, cy: UNIT * row, r: 4, fill: BLUE }));
  const first = svg("circle", { cx: UNIT * places[0][1], cy: UNIT * places[0][0], r: 8, fill: "none", stroke: RED, "stroke-width": 2 });
  const [rows, columns] = places[0].map(neighbours);
  const cells = rows.flatMap(([row, ofRow]) => columns.map(([column, ofColumn]) => ({ row, column, weight: ofRow * ofColumn })));
  const numbers = cells.map(({ row, column, weight }) => (
    label(UNIT * (column + 0.5), UNIT * (row + 0.5) + 4, weight.toFixed(2), { class: "live-number", "font-size": 13 })
  ));
  const side = UNIT * (CELLS + 1);
  const drawing = panels(
    panel(say("RoIPool: an edge is {off} cells off", { off: off.toFixed(2) }), side, side, ...map(box), ...drawBins(rounded, bins, true)),
    panel(say("RoIAlign: {number} samples", { number: places.length }), side, side, ...map(box), ...drawBins(box, bins, false), ...dots, first, ...numbers),
  );
  const [row, column] = places[0].map((at) => at.toFixed(2));
  const weights = cells
    .map((cell) => say("{weight} of cell ({row}, {column})", { ...cell, weight: cell.weight.toFixed(2) }))
    .join(say(", "));
  const whole = { top: rounded[1], bottom: rounded[3] - 1, left: rounded[0], right: rounded[2] - 1, off: off.toFixed(2) };
  const sentence = say("RoIPool takes rows {top} to {bottom} and columns {left} to {right}; an edge is {off} cells off. ", whole) +
    say("RoIAlign takes {samples}; the first, at row {row} and column {column}, is {weights}.", { samples: counted(places.length, aligned), row, column, weights });
  return { drawing, sentence };
}

/** Put the figure into its place. */
export function mount(place) {
  figure(place, {
    left: { label: say("left"), value: 1.6, min: 0, max: 4, step: 0.1 },
    top: { label: say("top"), value: 1.3, min: 0, max: 4, step: 0.1 },
    width: { label: say("width"), value: 3.8, min: 0.4, max: 4, step: 0.1 },
    height: { label: say("height"), value: 3, min: 0.4, max: 4, step: 0.1 },
    bins: { label: say("bins"), value: 2, options: [1, 2, 3] },
    samples: { label: say("samples"), value: 2, options: [1, 2, 3] },
    aligned: { label: say("aligned"), value: true },
  }, draw);
}
