// A worker for eventjobs in plain Node, from version 18: node worker.mjs http://127.0.0.1:8080
// An API key is in EVENTJOBS_TOKEN.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const url = process.argv[2] ?? "http://127.0.0.1:8080";
const worker = `node-${randomUUID()}`; // drawn anew at each start: two must never be the same
const token = process.env.EVENTJOBS_TOKEN;
const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
let stopping = false;

const handlers = {
  async shout({ text, times = 1 }, report, stop) {
    for (let done = 0; done < times; done++) {
      stop.throwIfAborted();
      await report("progress", { done, total: times, message: text });
      await sleep(50);
    }
    return text.toUpperCase();
  },
};

// Repeat a request until the service accepts it, also over restarts; null when the attempt is lost.
async function post(path, body = {}) {
  for (;;) {
    const sent = { method: "POST", headers, redirect: "error" };
    const response = await fetch(url + path, { ...sent, body: JSON.stringify({ worker, ...body }) }).catch(() => null);
    if (response?.ok) return response.json().catch(() => null);
    if ([404, 409, 410].includes(response?.status)) return null;
    if (response && response.status < 500 && response.status !== 429) throw new Error(await response.text());
    await sleep(500);
  }
}

async function run({ job_id, attempt, lease_s, type, payload }) {
  const stop = new AbortController();
  const report = async (name, body) => {
    const response = await post(`/v1/work/${job_id}/${attempt}/${name}`, body);
    if (!response || response.cancel) stop.abort(); // cancelled, out of time, or lost
  };
  const beat = setInterval(() => report("heartbeat"), (lease_s * 1000) / 3);
  try {
    await report("complete", { result: await handlers[type](payload, report, stop.signal) });
  } catch (error) {
    if (stop.signal.aborted) await report("cancelled");
    else await report("fail", { code: "handler_error", message: String(error) });
  } finally {
    clearInterval(beat);
  }
}

process.once("SIGTERM", () => {
  stopping = true;
  post("/v1/work/claim", { types: [] }); // ends the wait of the one below
});
while (!stopping) {
  const claimed = await post("/v1/work/claim", { types: Object.keys(handlers), wait_s: 20 });
  await Promise.all((claimed?.jobs ?? []).map(run));
}
