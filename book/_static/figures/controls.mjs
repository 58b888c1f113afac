// What the live figures share: sliders with names, SVG elements, and the palette.
import { say } from "./words.mjs";

/** Class colours, as segedu.palette has them. */
export const COLOURS = ["#44494f", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00"];
export const [GROUND, ORANGE, SKY, GREEN, YELLOW, PINK, BLUE, RED] = COLOURS;

/** An HTML element with attributes and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** An SVG element with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Text in SVG: it follows the page's colour. */
export function label(x, y, text, attributes = {}) {
  return svg("text", { x, y, "text-anchor": "middle", fill: "currentColor", "font-size": 14, ...attributes }, text);
}

/** Drawings side by side, or one below the other where there is no room. */
export function panels(...drawings) {
  return element("div", { class: "live-panels" }, ...drawings);
}

/** A drawing with a title; `height` leaves out the 24 units of the title. */
export function panel(title, width, height, ...children) {
  return svg("svg", { viewBox: `0 -24 ${width} ${height + 24}` }, label(width / 2, -8, title), ...children);
}

/** Coloured squares with the names that they stand for, in the page's language. */
export function legend(names) {
  const entries = Object.entries(names).map(([name, fill]) => {
    const square = svg("svg", { viewBox: "0 0 10 10" }, svg("rect", { width: 10, height: 10, fill }));
    return element("span", {}, square, " ", say(name));
  });
  return element("div", { class: "live-legend" }, ...entries);
}

/**
 * Build a figure of controls and a drawing.
 *
 * Options and `moved.help` are given in English, all other texts in the page's language; see words.mjs.
 *
 * `controls` maps each name to {label, value, min, max, step} (a slider; `max` may be a function of
 * all values), {label, value, options} (a choice), {label, value: true | false} (a switch) or
 * {label, press} (a button; `press(values)` gives the values to change). Any of them may have
 * `group`, the name of a frame to stand in, and `shown(values)`, whether it is to be seen.
 *
 * `draw(values)` gives an element and a sentence that says what it shows, which screen readers read
 * when it changes. `moved(values, right, down)`, where there is one, gives the values to change
 * when an element of the class "live-drag" is dragged so far in units of its SVG; arrow keys on the
 * drawing move by one `unit`, and `moved.help` says so.
 */
export function figure(place, controls, draw, moved) {
  const values = {};
  const board = element("div", { class: "live-controls" });
  const picture = element("div", { class: "live-picture" });
  const said = element("p", { class: "live-said", role: "status" });
  const made = {};
  const redraw = () => {
    for (const [name, { node, about, set }] of Object.entries(made)) {
      if (typeof about.max === "function") values[name] = set(values[name], about.max(values));
      if (about.shown) node.hidden = !about.shown(values);
    }
    for (const frame of board.querySelectorAll("fieldset")) {
      frame.hidden = [...frame.querySelectorAll("label, button")].every((each) => each.hidden);
    }
    const { drawing, sentence } = draw({ ...values });
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", sentence);
    picture.replaceChildren(drawing);
    said.textContent = sentence;
  };
  const assign = (changes) => {
    for (const [name, value] of Object.entries(changes)) values[name] = made[name].set(value);
    redraw();
  };
  const frames = {};
  for (const [name, about] of Object.entries(controls)) {
    values[name] = about.value;
    made[name] = about.press
      ? button(about, () => assign(about.press({ ...values })))
      : control(about, (value) => { values[name] = value; redraw(); });
    const { group } = about;
    if (group && !frames[group]) board.append(frames[group] = element("fieldset", {}, element("legend", {}, group)));
    (frames[group] ?? board).append(made[name].node);
  }
  if (moved) letMove(picture, moved, () => ({ ...values }), assign);
  place.replaceChildren(board, picture, said);
  redraw();
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function letMove(picture, moved, current, assign) {
  let grip = null;
  const at = (event, screen) => new DOMPoint(event.clientX, event.clientY).matrixTransform(screen);
  picture.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0 || !event.target.closest(".live-drag")) return;
    const screen = event.target.ownerSVGElement.getScreenCTM().inverse();
    grip = { screen, from: at(event, screen), values: current() };
    picture.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  picture.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const to = at(event, grip.screen);
    assign(moved(grip.values, to.x - grip.from.x, to.y - grip.from.y));
  });
  for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, () => { grip = null; });
  Object.entries({ tabindex: 0, role: "group", "aria-label": say(moved.help) }).forEach((each) => picture.setAttribute(...each));
  picture.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS) || event.altKey || event.ctrlKey || event.metaKey) return;
    const [right, down] = ARROWS[event.key];
    assign(moved(current(), right * moved.unit, down * moved.unit));
    event.preventDefault();
  });
}

function button(about, pressed) {
  const node = element("button", { type: "button" }, about.label);
  node.addEventListener("click", pressed);
  return { node, about };
}

function control(about, changed) {
  if (about.options) {
    const choice = element("select", {}, ...about.options.map((option) => element("option", { value: option }, say(String(option)))));
    const set = (value) => { choice.value = String(value); return value; };
    set(about.value);
    choice.addEventListener("change", () => changed(about.options[choice.selectedIndex]));
    return { node: element("label", {}, about.label, " ", choice), about, set };
  }
  if (typeof about.value === "boolean") {
    const box = element("input", { type: "checkbox" });
    const set = (value) => box.checked = value;
    set(about.value);
    box.addEventListener("change", () => changed(box.checked));
    return { node: element("label", {}, box, " ", about.label), about, set };
  }
  const { min, max, step = 1, value } = about;
  const slider = element("input", { type: "range", min, max: typeof max === "function" ? 1e6 : max, step, value });
  const shown = element("output", {}, String(value));
  const set = (wanted, most = slider.max) => {
    slider.max = most;
    slider.value = wanted; // the browser keeps it within the limits
    shown.textContent = slider.value;
    return Number(slider.value);
  };
  slider.addEventListener("input", () => changed(set(slider.value)));
  return { node: element("label", {}, about.label, " ", slider, " ", shown), about, set };
}
