// Visit pages of the site in Chromium and print, as JSON, what went wrong on each.
//
//   node tests/book/browse.mjs ORIGIN WIDTH SCHEME PATH... [--shots DIR]
//
// SCHEME is light or dark; the contrast of colours is looked at in both.
// For each page: errors on the console, requests that left ORIGIN and those that did not, serious and
// critical findings of axe-core, by how much the page is wider than the window, and what the page
// found, if it is that of the search.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { installed, launch } from "./chromium.mjs";

const axe = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

const given = process.argv.slice(2);
const at = given.indexOf("--shots");
const shots = at < 0 ? null : given.splice(at, 2)[1];
const [origin, width, scheme, ...paths] = given;

const browser = await launch();

async function visit(path) {
  const page = await browser.newPage();
  await page.setViewport({ width: Number(width), height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  const errors = [];
  const outside = [];
  const loaded = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (url.startsWith(origin)) loaded.push(new URL(url).pathname);
    else if (!url.startsWith("data:")) outside.push(url);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) errors.push(`${response.status()} ${response.url()}`);
  });
  await page.goto(origin + path, { waitUntil: "networkidle0" });
  if (path.includes("?q=")) await page.waitForSelector("#search-results li a", { timeout: 20000 });
  const wide = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (shots) {
    const name = `${path.replaceAll(/[^\w]+/g, "_")}_${width}_${scheme}.png`;
    await page.screenshot({ path: join(shots, name) });
  }
  await page.addStyleTag({ content: "* { transition: none !important; }" }); // colours fade over
  await page.evaluate(axe);
  const found = await page.evaluate(async (mode) => {
    const whole = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    document.documentElement.dataset.theme = mode === "light" ? "dark" : "light";
    const rules = ["color-contrast", "link-in-text-block"];
    const other = await globalThis.axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
    return [...whole.violations, ...other.violations];
  }, scheme);
  const violations = found
    .filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.id}: ${v.nodes.length} such as ${v.nodes[0].html.slice(0, 200)}`);
  const results = await page.$$eval("#search-results li a", (links) =>
    links.map((link) => link.textContent),
  );
  await page.close();
  return { path, errors, outside, wide, violations, loaded, results };
}

const visits = [];
const waiting = [...paths.entries()];
async function visitAll() {
  for (let next = waiting.shift(); next; next = waiting.shift()) visits[next[0]] = await visit(next[1]);
}
await Promise.all([visitAll(), visitAll()]);
await browser.close();
console.log(JSON.stringify(visits, null, 1));
