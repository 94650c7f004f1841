// Run a script in Pyodide, with the source as it lies here: node pyodide.mjs FOLDER SRC SCRIPT
// FOLDER holds node_modules/pyodide, and wheels/ with what the package needs; `make pyodide` makes it.
import fs from "node:fs";
import path from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

const [folder, source, script] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(path.join(folder, "node_modules/pyodide/pyodide.mjs")).href);
const python = await loadPyodide();
const site = python.runPython("import site; site.getsitepackages()[0]");
const wheels = path.join(folder, "wheels");
for (const name of fs.readdirSync(wheels)) {
  const bytes = new Uint8Array(fs.readFileSync(path.join(wheels, name)));
  python.unpackArchive(bytes, "wheel", { extractDir: site });
}
python.FS.mkdirTree("/source");
python.FS.mount(python.FS.filesystems.NODEFS, { root: source }, "/source");
python.runPython("import sys; sys.path.insert(0, '/source')");
let failed = 0;
try {
  await python.runPythonAsync(fs.readFileSync(script, "utf8"));
} catch (error) {
  console.error(error.message);
  failed = 1;
}
process.exit(failed);
