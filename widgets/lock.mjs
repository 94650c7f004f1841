// Rewrites package-lock.json for the newest versions package.json allows, without addresses: no registry, no sponsor links.
import { execSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const file = fileURLToPath(new URL("package-lock.json", import.meta.url));
execSync("npm update --package-lock-only", { cwd: fileURLToPath(new URL(".", import.meta.url)), stdio: "inherit" });
const drop = (key, value) => (key === "funding" || key === "resolved" ? undefined : value);
writeFileSync(file, `${JSON.stringify(JSON.parse(readFileSync(file, "utf8"), drop), null, 2)}\n`);
