// Look at pages as they are on paper, without scripts, and in a narrow window; print JSON.
//
//   node tests/book/paper.mjs ORIGIN CHAPTERS_WITH_LIVE_FIGURES PATH...
//
// On paper, of each PATH: the parts of the site around the article that are seen, what is folded or
// cut off, and the theme that a page which is dark on the screen has while it is printed. Without
// scripts, of each PATH: letters, formulas and pictures that are seen, and whether colours differ.
// Of each live figure: the size in pixels of its smallest text, 360 pixels wide.
import { launch } from "./chromium.mjs";

const [origin, chapters, ...paths] = process.argv.slice(2);
const A4 = { width: 718, height: 1047 }; // less the margins, at 96 pixels an inch

const browser = await launch();

function onPaper() {
  const seen = (node) => node.checkVisibility({ checkOpacity: true }) && node.getBoundingClientRect().height > 0;
  const named = (node) => `${node.localName}.${node.getAttribute("class") ?? ""}`;
  const around = ".bd-sidebar-primary, .bd-header-article, .prev-next-footer, .bd-footer, .bd-header, .copybtn, .live-controls";
  const wide = [...document.querySelectorAll("article *")].filter((node) => {
    if (node.closest(".katex-mathml, svg") || !seen(node)) return false;
    const { left, right } = node.getBoundingClientRect();
    const scrolls = getComputedStyle(node).overflowX !== "visible" && node.scrollWidth > node.clientWidth + 1;
    return left < -1 || right > innerWidth + 1 || (scrolls && node.matches("pre, .cell_output, .katex-display"));
  });
  const folded = [...document.querySelectorAll("article details > *")].filter((node) => !seen(node));
  return {
    around: [...document.querySelectorAll(around)].filter(seen).map(named),
    wide: wide.map(named),
    folded: folded.map(named),
    unfolded: document.querySelectorAll("article details").length,
    lines: [...document.querySelectorAll("article pre")].filter(seen).length,
  };
}

async function paper(path) {
  const page = await browser.newPage();
  await page.setViewport(A4);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await page.goto(origin + path, { waitUntil: "networkidle0" });
  const screen = await page.evaluate(() => {
    addEventListener("beforeprint", () => { globalThis.printed = document.documentElement.dataset.theme; });
    return document.documentElement.dataset.theme;
  });
  const pdf = await page.pdf({ format: "A4", pageRanges: "1" });
  const themes = await page.evaluate(() => [globalThis.printed, document.documentElement.dataset.theme]);
  await page.emulateMediaType("print");
  const found = await page.evaluate(onPaper);
  await page.close();
  return { ...found, pdf: pdf.length, themes: [screen, ...themes] };
}

function still() {
  const article = document.querySelector("article");
  const pictures = [...article.querySelectorAll("img")];
  const formulas = [...article.querySelectorAll(".katex-html")];
  return {
    letters: article.innerText.length,
    formulas: formulas.length,
    flat: formulas.filter((each) => each.getBoundingClientRect().height < 5 && each.checkVisibility()).length,
    mathFonts: [...document.fonts].filter((font) => font.family.startsWith("KaTeX") && font.status === "loaded").length,
    pictures: pictures.length,
    missing: pictures.filter((each) => !each.naturalWidth).map((each) => each.src),
    ink: getComputedStyle(article.querySelector("p")).color,
    ground: getComputedStyle(document.body).backgroundColor,
    figures: [...article.querySelectorAll(".live-figure")].filter((each) => each.checkVisibility()).length,
  };
}

async function withoutScripts(path) {
  const page = await browser.newPage();
  await page.setJavaScriptEnabled(false);
  await page.goto(origin + path, { waitUntil: "networkidle0" });
  const found = await page.evaluate(still);
  await page.close();
  return found;
}

async function smallestText(path) {
  const page = await browser.newPage();
  await page.setViewport({ width: 360, height: 900 });
  await page.goto(origin + path, { waitUntil: "networkidle0" });
  const found = await page.evaluate(() =>
    Object.fromEntries([...document.querySelectorAll("[data-live-figure]")].map((place) => {
      const texts = [...place.querySelectorAll("svg text")];
      const size = (text) => {
        const { a, b } = text.getScreenCTM();
        return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
      };
      const sizes = texts.map(size);
      return [place.dataset.liveFigure, Math.min(...sizes)];
    })),
  );
  await page.close();
  return found;
}

const result = { paper: {}, still: {}, smallest: {} };
for (const path of paths) {
  result.paper[path] = await paper(path);
  result.still[path] = await withoutScripts(path);
}
for (const path of chapters.split(",")) Object.assign(result.smallest, await smallestText(path));
await browser.close();
console.log(JSON.stringify(result, null, 1));
