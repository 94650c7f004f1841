// Container: how JupyterLab loads an extension without a build step, as webpack's module federation has it:
// `init` is handed the packages that the page shares, `get` gives a factory of the module that is asked for.
//
// The build puts the bundle between `federate(...)` and its end, in which `require` knows the packages of the page.
// This is all of what @jupyter/builder makes of one file that shares nothing and takes what the page has; it would
// add 109 MB and 123 packages to every `npm ci`.
const federate = (wanted, run) => {
  let shared;
  let made;
  const load = async (name) => {
    const versions = Object.entries(shared[name] ?? {});
    if (!versions.length) return [name, undefined];
    const number = ([version]) => version.split(".").map((part) => String(parseInt(part, 10) || 0).padStart(6, "0")).join(".");
    versions.sort((a, b) => !!a[1].loaded - !!b[1].loaded || (number(a) < number(b) ? -1 : 1));
    return [name, (await versions.at(-1)[1].get())()];
  };
  const make = async () => {
    const modules = new Map(await Promise.all(wanted.map(load)));
    const module = { exports: {} };
    // A page that lacks a package, such as Notebook's, still gets what does not need it.
    run((name) => modules.get(name) ?? {}, module, module.exports);
    return module.exports;
  };
  return {
    init(scope) {
      if (shared && shared !== scope) throw new Error("the extension is initialized already, with other packages");
      shared = scope;
    },
    async get(name) {
      if (name !== "./extension" && name !== "./index") throw new Error(`there is no module ${name}`);
      const exports = await (made ??= make());
      return () => exports;
    },
  };
};
