// Bottleneck's part of the benchmark: n requests over lines that stay open, and what they cost, as one line of JSON.
// It says "ready", and begins at a line of stdin.
//
//     node rate_bottleneck.cjs PATH_OF_BOTTLENECK '{"port": 1234, "n": 100, "options": {"reservoir": 100, ...}}'
//
// The client is as cheap as the Python ones: plain sockets, one request at a time on each.

const { once } = require("node:events");
const net = require("node:net");
const Bottleneck = require(process.argv[2]);
const { port, n, options } = JSON.parse(process.argv[3]);

const idle = [];
const latencies_s = [];

function connect() {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true }, () => resolve(socket));
    socket.once("error", reject);
  });
}

async function ask(item) {
  const started = performance.now();
  const socket = idle.pop() ?? (await connect());
  await new Promise((resolve, reject) => {
    let told = "";
    const hear = (data) => {
      told += data.toString("latin1");
      if (!told.endsWith("\r\n\r\n{}")) return;
      socket.off("data", hear);
      told.startsWith("HTTP/1.1 200") ? resolve() : reject(new Error(told));
    };
    socket.on("data", hear);
    socket.write(`GET /${item} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  });
  idle.push(socket);
  latencies_s.push((performance.now() - started) / 1000);
}

async function main() {
  const limiter = new Bottleneck(options);
  await limiter.ready();
  console.log("ready");
  await once(process.stdin, "data");
  process.stdin.destroy();
  const before = process.cpuUsage();
  const asked = Array.from({ length: n }, (_, item) => limiter.schedule(() => ask(item)));
  const done = (await Promise.all(asked)).length;
  const used = process.cpuUsage(before);
  await limiter.disconnect();
  for (const socket of idle) socket.destroy();
  console.log(JSON.stringify({ done, latencies_s, cpu_s: (used.user + used.system) / 1e6 }));
}

main();
