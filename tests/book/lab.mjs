// Open a notebook in JupyterLab, run all its cells, move its first slider, and print what was seen.
//
//   node tests/book/lab.mjs ORIGIN TOKEN NOTEBOOK SHOTS
//
// JupyterLab must run with --expose-app-in-browser. Prints, as JSON: how many code cells there are,
// how many ran, the errors among their outputs, whether the slider's picture changed, and the size
// of that picture.
import { join } from "node:path";
import { launch } from "./chromium.mjs";

const [origin, token, notebook, shots] = process.argv.slice(2);

const browser = await launch();
const page = await browser.newPage();
page.setDefaultTimeout(240000);
await page.setViewport({ width: 1200, height: 1000 });
await page.goto(`${origin}/lab/tree/${notebook}?token=${token}`);
await page.waitForFunction(() => document.body.innerText.includes("| Idle"));
await new Promise((done) => setTimeout(done, 2000));
await page.evaluate(() => globalThis.jupyterapp.commands.execute("notebook:run-all-cells"));

const seen = await page.evaluate(() => {
  const { content } = globalThis.jupyterapp.shell.currentWidget;
  const cells = content.widgets.map((cell) => cell.model).filter((m) => m.type === "code");
  const outputs = cells.flatMap((m) => m.outputs.toJSON());
  return {
    cells: cells.filter((m) => m.sharedModel.getSource().trim()).length,
    ran: cells.filter((m) => m.executionCount !== null).length,
    errors: outputs.filter((o) => o.output_type === "error").map((o) => `${o.ename}: ${o.evalue}`),
  };
});

await page.evaluate(() => {
  const { content } = globalThis.jupyterapp.shell.currentWidget;
  const at = content.widgets.findIndex((cell) =>
    cell.model.type === "code" &&
    cell.model.outputs.toJSON().some((o) => "application/vnd.jupyter.widget-view+json" in (o.data ?? {})),
  );
  content.activeCellIndex = at;
  return content.scrollToItem(at, "center");
});
const handle = await page.waitForSelector(".widget-slider .noUi-handle", { visible: true });
const source = () => page.$eval("img.widget-image", (image) => image.src);
await page.waitForFunction(() => document.querySelector("img.widget-image")?.naturalWidth > 0);
const before = await source();
await page.screenshot({ path: join(shots, "before.png") });
await handle.focus();
await page.keyboard.press("ArrowRight");
await page.waitForFunction((old) => document.querySelector("img.widget-image").src !== old, {}, before);
await page.waitForFunction(() => document.querySelector("img.widget-image").naturalWidth > 0);
const picture = await page.evaluate(async () => {
  const image = document.querySelector("img.widget-image");
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) colours.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]);
  return { width: canvas.width, height: canvas.height, colours: colours.size };
});
await page.screenshot({ path: join(shots, "after.png") });
await browser.close();
console.log(JSON.stringify({ ...seen, changed: true, picture }));
