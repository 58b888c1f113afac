// What the tests in Chromium share: the packages that `make book` installs, and the browser itself.
import { mkdtempSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const installed = createRequire(new URL("../../book/package.json", import.meta.url));

/** A browser with an empty profile, which asks nobody for anything by itself. */
export async function launch() {
  const puppeteer = await import(installed.resolve("puppeteer-core"));
  return puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    userDataDir: mkdtempSync(join(tmpdir(), "chromium-")),
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
}
