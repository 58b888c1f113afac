// What the live figures share: sliders with names, SVG elements, and the palette.

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

/**
 * Build a figure of controls and a drawing.
 *
 * `controls` maps each name to {label, value, min, max, step} (a slider), {label, value, options}
 * (a choice) or {label, value: true | false} (a switch). `draw(values)` gives an SVG element and a
 * sentence that says what it shows, which screen readers read when it changes.
 */
export function figure(place, controls, draw) {
  const values = {};
  const panel = element("div", { class: "live-controls" });
  const picture = element("div", { class: "live-picture" });
  const said = element("p", { class: "live-said", role: "status" });
  const redraw = () => {
    const { drawing, sentence } = draw({ ...values });
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", sentence);
    picture.replaceChildren(drawing);
    said.textContent = sentence;
  };
  for (const [name, about] of Object.entries(controls)) {
    values[name] = about.value;
    panel.append(control(about, (value) => { values[name] = value; redraw(); }));
  }
  place.replaceChildren(panel, picture, said);
  redraw();
}

function control(about, changed) {
  if (about.options) {
    const choice = element("select", {}, ...about.options.map((option) => element("option", {}, String(option))));
    choice.value = String(about.value);
    choice.addEventListener("change", () => changed(about.options[choice.selectedIndex]));
    return element("label", {}, about.label, " ", choice);
  }
  if (typeof about.value === "boolean") {
    const box = element("input", { type: "checkbox" });
    box.checked = about.value;
    box.addEventListener("change", () => changed(box.checked));
    return element("label", {}, box, " ", about.label);
  }
  const { min, max, step = 1, value } = about;
  const slider = element("input", { type: "range", min, max, step, value });
  const shown = element("output", {}, String(value));
  slider.addEventListener("input", () => {
    shown.textContent = slider.value;
    changed(Number(slider.value));
  });
  return element("label", {}, about.label, " ", slider, " ", shown);
}
