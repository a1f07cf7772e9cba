// eventjobs/http/dashboard/poll.js, without a server: what is requested when, and how it ends.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { setImmediate } from "node:timers/promises";

import { poll, PollError } from "../../eventjobs/http/dashboard/poll.js";

const UUID = "01900000-0000-7000-8000-000000000001";
const RUNNING = { status: "running" };
let delays, deadlines, requests, replies;

function json(body, status = 200, headers = {}) {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "Content-Type": "application/json", ...headers },
  });
}

// Time passes at once: each delay is recorded and over. Deadlines are kept for the test to fire.
beforeEach(() => {
  [delays, deadlines, requests] = [[], [], []];
  globalThis.setTimeout = (callback, ms) => {
    if (ms === 10_000 || ms === 600_000) deadlines.push([ms, callback]);
    else {
      delays.push(ms / 1000);
      queueMicrotask(callback);
    }
  };
  globalThis.clearTimeout = () => {};
  globalThis.fetch = async (url, options) => {
    requests.push([url, options]);
    const reply = replies.length > 1 ? replies.shift() : replies[0];
    return typeof reply === "function" ? reply(options) : json(reply);
  };
});

const refuse = (status, headers) => () => json({ detail: "no", code: "x" }, status, headers);
const hang = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

test("a job is requested after 1, 2, 4, 8 and 15 s until it has ended", async () => {
  replies = [...Array(7).fill(RUNNING), { status: "completed" }];
  const seen = [];
  const job = await poll("/api/jobs/x", { token: "secret", onStatus: (job) => seen.push(job.status) });
  assert.equal(job.status, "completed");
  assert.deepEqual(delays, [1, 2, 4, 8, 15, 15, 15]);
  assert.deepEqual(seen, [...Array(7).fill("running"), "completed"]);
  assert.equal(requests[0][1].headers.Authorization, "Bearer secret");
});

for (const status of ["completed", "failed", "cancelled"])
  test(`it stops at ${status}`, async () => {
    replies = [{ status }];
    assert.equal((await poll("/api/jobs/x")).status, status);
    assert.equal(requests.length, 1);
  });

for (const status of [500, 503, 429])
  test(`a server that answers ${status} is asked six times`, async () => {
    replies = [refuse(status)];
    await assert.rejects(poll("/api/jobs/x"), (error) => error instanceof PollError && error.status === status);
    assert.deepEqual(delays, [2, 4, 8, 16, 32]);
  });

test("a server that is away is tried again", async () => {
  replies = [() => Promise.reject(new TypeError("Failed to fetch")), { status: "failed" }];
  assert.equal((await poll("/api/jobs/x", { delays: [2] })).status, "failed");
  assert.deepEqual(delays, [2]);
});

test("a server may ask for a longer wait", async () => {
  replies = [refuse(503, { "Retry-After": "60" }), { status: "completed" }];
  await poll("/api/jobs/x");
  assert.deepEqual(delays, [60]);
});

test("an unknown job is an error at once, with the body of the response", async () => {
  replies = [refuse(404)];
  const error = await poll("/api/jobs/x").catch((error) => error);
  assert.deepEqual([error.status, error.message, error.body.code], [404, "no", "x"]);
  assert.equal(requests.length, 1);
});

test("a request without a response ends after 10 s, and is repeated", async () => {
  replies = [hang, { status: "completed" }];
  const polling = poll("/api/jobs/x");
  await setImmediate();
  deadlines.find(([ms]) => ms === 10_000)[1]();
  assert.equal((await polling).status, "completed");
});

test("a job that never ends is given up", async () => {
  replies = [hang];
  const polling = poll("/api/jobs/x");
  await setImmediate();
  deadlines.find(([ms]) => ms === 600_000)[1]();
  await assert.rejects(polling, { name: "PollError", message: "Job polling timeout" });
});

test("a signal ends it", async () => {
  replies = [hang];
  const controller = new AbortController();
  const polling = poll("/api/jobs/x", { signal: controller.signal });
  await setImmediate();
  controller.abort();
  await assert.rejects(polling, { name: "AbortError" });
  await assert.rejects(poll("/api/jobs/x", { signal: controller.signal }), { name: "AbortError" });
});

for (const id of [UUID, `job_${UUID.replaceAll("-", "")}`])
  test(`a stream ends a delay early: ${id}`, async () => {
    globalThis.setTimeout = () => {}; // no time passes
    const frame = (status) => `id: 1\nevent: job\ndata: {"status":"${status}"}\n\n`;
    let jobs = 0;
    globalThis.fetch = async (url, { headers }) => {
      if (headers.Accept !== "text/event-stream") return json(jobs++ ? { status: "completed" } : RUNNING);
      requests.push([url, headers.Authorization]);
      return new Response(`retry: 1\n\n${frame("running")}${frame("completed")}`, {
        headers: { "Content-Type": "text/event-stream; charset=utf-8" },
      });
    };
    const job = await poll(`http://127.0.0.1/api/job-status/${id}`, { token: "t" });
    assert.equal(job.status, "completed");
    assert.deepEqual(requests, [[`http://127.0.0.1/v1/jobs/${UUID}`, "Bearer t"]]);
    assert.equal(jobs, 2);
  });

test("without a stream it polls", async () => {
  let jobs = 0;
  globalThis.fetch = async (url, { headers }) =>
    headers.Accept === "text/event-stream" ? json({}, 404) : json(jobs++ < 2 ? RUNNING : { status: "failed" });
  assert.equal((await poll(`/api/jobs/${UUID}`)).status, "failed");
  assert.deepEqual(delays, [1, 2]);
});

test("only two streams are open at once", async () => {
  let streams = 0;
  globalThis.fetch = async (url, options) => {
    if (options.headers.Accept !== "text/event-stream") return json({ status: jobStatus });
    streams++;
    return hang(options);
  };
  let jobStatus = "running";
  const waiting = [];
  globalThis.setTimeout = (callback, ms) => ms === 1000 && waiting.push(callback);
  const all = Promise.all([1, 2, 3, 4].map(() => poll(`/v1/jobs/${UUID}`)));
  await setImmediate();
  assert.equal(streams, 2);
  jobStatus = "completed";
  for (const callback of waiting) callback();
  assert.equal((await all).length, 4);
});
