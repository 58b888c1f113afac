// Mount a live figure in a stand-in for a page and print, as JSON, all texts that it ever shows.
//
//   node tests/book/shown_texts.mjs MODULE LANGUAGE
//
// Sliders go to both ends, choices through all options, switches are switched and buttons pressed;
// the texts of both languages come in the same order.
const [module, lang] = process.argv.slice(2);

class Element {
  constructor(name) {
    Object.assign(this, { name, children: [], attributes: {}, style: {}, listeners: {}, hidden: false });
  }

  setAttribute(key, value) {
    this.attributes[key] = String(value);
    if (["min", "max", "type", "value"].includes(key)) this[key] = value;
  }

  append(...nodes) {
    this.children.push(...nodes);
  }

  replaceChildren(...nodes) {
    this.children = nodes;
  }

  addEventListener(kind, listener) {
    this.listeners[kind] = listener;
  }

  set textContent(text) {
    this.children = [text];
  }

  get inside() {
    return this.children.flatMap((child) => (child instanceof Element ? [child, ...child.inside] : []));
  }

  querySelectorAll(names) {
    return this.inside.filter(({ name }) => names.split(", ").includes(name));
  }

  get value() {
    return this.now ?? this.children.join("");
  }

  set value(wanted) {
    this.now = String(this.type === "range" ? Math.min(Math.max(wanted, this.min), this.max) : wanted);
  }

  get selectedIndex() {
    return this.children.findIndex(({ value }) => value === this.now);
  }

  get texts() {
    const { title, "aria-label": said } = this.attributes;
    const below = this.children.flatMap((child) => (child instanceof Element ? child.texts : [String(child)]));
    return [title, said, ...below].filter((text) => text?.trim());
  }
}

const place = new Element("div");
globalThis.document = {
  createElement: (name) => new Element(name),
  createElementNS: (_, name) => new Element(name),
  querySelector: () => ({ closest: () => ({ lang }) }),
};
const { mount } = await import(module);
mount(place);

const shown = [...place.texts];
const use = (control, event, changes = {}) => {
  Object.assign(control, changes);
  control.listeners[event]();
  shown.push(...place.texts);
};

function useAll() {
  for (const control of place.inside) {
    if (control.type === "range") for (const end of ["min", "max"]) use(control, "input", { value: control[end] });
    if (control.type === "checkbox") use(control, "change", { checked: !control.checked });
    if (control.name === "button") for (let i = 0; i < 6; i += 1) use(control, "click");
  }
}

const choices = place.inside.filter(({ name }) => name === "select");
useAll();
for (const choice of choices) {
  if (choice.selectedIndex < 0) throw new Error(`${choice.value} is none of the options`);
  for (const option of choice.children.map(({ value }) => value)) {
    use(choice, "change", { value: option });
    useAll();
  }
}
console.log(JSON.stringify(shown));
