// Bundles what runs in the browser, each part into one file with nothing from elsewhere:
//
//   src/panel.ts, src/panel.css  -> jupyter/static    one ES module and one style sheet, for anywidget
//   lab/src/index.ts             -> labextension      the extension of JupyterLab, in the container that it loads
//
// `npm run build -- --out=DIR` writes below another folder, which is how the check proves what is committed current.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({ options: { out: { type: "string" } } });
const out = (name) => (values.out ? join(resolve(values.out), name.split("/").at(-1)) : join(here, "../src/ipybatch", name));
const read = (...path) => readFileSync(join(here, ...path), "utf8");
const shared = {
  absWorkingDir: here,
  bundle: true,
  target: "es2022",
  minify: true,
  // ASCII only, whatever encoding the page is served in.
  charset: "ascii",
  legalComments: "inline",
  logLevel: "warning",
};

await build({ ...shared, entryPoints: ["src/panel.ts", "src/panel.css"], outdir: out("jupyter/static"), format: "esm" });
await buildLab(out("labextension"));

async function buildLab(folder) {
  const about = JSON.parse(read("lab/package.json"));
  const version = /^__version__ = "(.+)"$/m.exec(read("../src/ipybatch/__init__.py"))[1];
  const style = await build({ ...shared, entryPoints: ["lab/style/lab.css"], write: false });
  const bundle = await build({
    ...shared,
    entryPoints: ["lab/src/index.ts"],
    format: "cjs",
    external: ["@jupyterlab/*", "@lumino/*"],
    define: { VERSION: JSON.stringify(version), STYLE: JSON.stringify(style.outputFiles[0].text) },
    metafile: true,
    write: false,
  });
  const [output] = Object.values(bundle.metafile.outputs);
  const wanted = [...new Set(output.imports.map(({ path }) => path))].sort();
  const strange = wanted.filter((name) => !(name in about.dependencies));
  if (strange.length) throw new Error(`lab/package.json must list ${strange.join(", ")}`);
  const code = [
    `(window._JUPYTERLAB ??= {})[${JSON.stringify(about.name)}] = (() => {`,
    `${read("lab/container.js").replace(/^\/\/.*\n/gm, "")}return federate(${JSON.stringify(wanted)}, (require, module, exports) => {`,
    `${bundle.outputFiles[0].text}});\n})();\n`,
  ].join("\n");
  const load = `static/remoteEntry.${createHash("sha256").update(code).digest("hex").slice(0, 16)}.js`;
  const jupyterlab = { ...about.jupyterlab, _build: { load, extension: "./extension" } };
  const install = {
    packageManager: "python",
    packageName: "ipybatch",
    uninstallInstructions: 'Use your Python package manager (pip, conda, etc.) to uninstall the package "ipybatch"',
  };
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, "static"), { recursive: true });
  writeFileSync(join(folder, load), code);
  writeFileSync(join(folder, "package.json"), `${JSON.stringify({ ...about, version, jupyterlab }, null, 2)}\n`);
  writeFileSync(join(folder, "install.json"), `${JSON.stringify(install, null, 2)}\n`);
  cpSync(join(here, "lab/schema"), join(folder, "schemas", about.name), { recursive: true });
}
