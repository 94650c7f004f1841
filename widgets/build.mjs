// Bundles src/panel.ts and src/panel.css for anywidget: one ES module, one style sheet, nothing from elsewhere.
// `npm run build -- --out=DIR` writes to another folder, which is how the check proves the committed bundle current.
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({ options: { out: { type: "string" } } });
const outdir = values.out ? resolve(values.out) : join(here, "../src/ipybatch/jupyter/static");
const entryPoints = ["src/panel.ts", "src/panel.css"].map((file) => join(here, file)).filter(existsSync);

await build({
  absWorkingDir: here,
  entryPoints,
  outdir,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  // ASCII only, whatever encoding the page is served in.
  charset: "ascii",
  legalComments: "inline",
  logLevel: "warning",
});
