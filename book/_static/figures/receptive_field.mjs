// What one output pixel of a chain of layers sees: segedu.widgets.convolutions, chapter 05.
import { BLUE, RED, figure, label, svg } from "./controls.mjs";
import { say } from "./words.mjs";

const MOST = 5;
const span = ({ kernel, dilation = 1 }) => dilation * (kernel - 1) + 1;

/** Width, jump and start of the field of an output after layers of {kernel, stride, dilation}, without padding. */
export function receptiveField(layers) {
  return layers.reduce(({ width, jump, start }, layer) => (
    { width: width + (span(layer) - 1) * jump, jump: jump * layer.stride, start }
  ), { width: 1, jump: 1, start: 0 });
}

/** Each level from the input upwards: where its dots stand, which are seen, and the lines down from it. */
export function chain(layers) {
  const field = receptiveField(layers);
  const lengths = [field.width + 4 * field.jump];
  for (const layer of layers) lengths.push(Math.floor((lengths.at(-1) - span(layer)) / layer.stride) + 1);
  const levels = lengths.map((length, level) => {
    const here = receptiveField(layers.slice(0, level));
    return { middles: Array.from({ length }, (_, i) => (here.width - 1) / 2 + i * here.jump), seen: [], lines: [] };
  });
  let seen = new Set([Math.floor(lengths.at(-1) / 2)]);
  for (let level = layers.length; level >= 0; level -= 1) {
    const { kernel, stride, dilation } = layers[level - 1] ?? {};
    levels[level].seen = [...seen].sort((a, b) => a - b);
    const below = new Set();
    for (const top of level ? levels[level].seen : []) {
      for (let tap = 0; tap < kernel; tap += 1) {
        const bottom = top * stride + tap * dilation;
        below.add(bottom);
        levels[level].lines.push([levels[level].middles[top], levels[level - 1].middles[bottom]]);
      }
    }
    seen = below;
  }
  return { ...field, count: levels[0].seen.length, levels };
}

function layersOf(values) {
  return Array.from({ length: values.layers }, (_, i) => (
    { kernel: values[`kernel${i}`], stride: values[`stride${i}`], dilation: values[`dilation${i}`] }
  ));
}

function draw(values) {
  const layers = layersOf(values);
  const { width, jump, count, levels } = chain(layers);
  const scale = 380 / levels[0].middles.length;
  const x = (middle) => (10 + scale * (middle + 0.5)).toFixed(2);
  const y = (level) => 48 * (layers.length - level) + 30;
  const height = y(0) + 34;
  const drawing = svg("svg", { viewBox: `0 0 400 ${height}`, style: "max-width: 28rem" });
  const dots = (middles, level, stroke, size, opacity) => svg("path", {
    d: middles.map((middle) => `M${x(middle)} ${y(level)}h0`).join(""),
    stroke, "stroke-width": Math.max(size / 5, Math.min(size, 0.8 * scale)), "stroke-linecap": "round", "stroke-opacity": opacity,
  });
  levels.forEach(({ lines }, level) => drawing.append(svg("path", {
    d: lines.map(([top, bottom]) => `M${x(top)} ${y(level)}L${x(bottom)} ${y(level - 1)}`).join(""),
    stroke: BLUE, "stroke-width": Math.min(1.3, Math.max(0.2, scale / 4)),
  })));
  levels.forEach(({ middles, seen }, level) => drawing.append(
    dots(middles, level, "currentColor", 7, 0.35),
    dots(seen.map((each) => middles[each]), level, RED, 9, 1),
    label(8, y(level) - 9, level ? say("layer {number}", { number: level }) : say("input"), { "text-anchor": "start", "font-size": 17, class: "live-number" }),
  ));
  const last = levels[0].middles.length - 1;
  for (const pixel of [0, last]) {
    const anchor = pixel ? "end" : "start";
    const name = say("pixel {number}", { number: pixel });
    drawing.append(label(pixel ? 392 : 8, y(0) + 22, name, { "text-anchor": anchor, "font-size": 17 }));
  }
  const counted = (number, one, more) => say(number === 1 ? one : more, { number });
  const sentence = say("{layers}: an output sees across {pixels}, of which {seen}. The next output's field begins {jump} further on.", {
    layers: counted(layers.length, "{number} layer", "{number} layers"),
    pixels: counted(width, "{number} input pixel", "{number} input pixels"),
    seen: counted(count, "{number} is seen", "{number} are seen"),
    jump: counted(jump, "{number} pixel", "{number} pixels"),
  });
  return { drawing, sentence };
}

/** Put the figure into its place. */
export function mount(place) {
  const controls = {
    layers: { label: say("layers"), value: 3, min: 0, max: MOST, shown: () => false },
    add: { label: say("add a layer"), press: ({ layers }) => ({ layers: layers + 1 }) },
    remove: { label: say("remove the last"), press: ({ layers }) => ({ layers: layers - 1 }) },
  };
  for (let i = 0; i < MOST; i += 1) {
    const about = { group: say("layer {number}", { number: i + 1 }), shown: ({ layers }) => i < layers };
    controls[`kernel${i}`] = { ...about, label: say("kernel"), value: 3, options: [1, 2, 3, 4, 5] };
    controls[`stride${i}`] = { ...about, label: say("stride"), value: 1, options: [1, 2] };
    controls[`dilation${i}`] = { ...about, label: say("dilation"), value: 1, options: [1, 2, 3, 4, 9] };
  }
  figure(place, controls, draw);
}
