// Polls a job until it has ended, at an address of a dialect or of the API. In pages and in Node:
//
//   import { poll } from "http://127.0.0.1:8080/poll.js";
//   const job = await poll(`/api/job-status/${jobId}`, { onStatus: (job) => show(job.progress) });
//
// Options, with times in seconds:
//   token           API key or JWT; pages of the service itself are logged in without one
//   signal          an AbortSignal that ends the polling
//   onStatus        called with each response
//   delays          between two requests, the last one repeated: [1, 2, 4, 8, 15]
//   giveUp          until a job that has not ended is given up: 600
//   requestTimeout  until a request without a response is given up: 10
//   stream          whether a stream of the job, where there is one, ends a delay early: true
//
// A request that the server could not serve (5xx, 429, no response) is repeated up to 5 times, after
// 2, 4, 8, 16 and 32 seconds. A refusal, as for an unknown job, is a PollError with its `status`
// and `body`. A job that has failed or was cancelled is returned like one that completed.

const ENDED = new Set(["completed", "failed", "cancelled"]);
const RETRIES_MAX = 5;
// A browser opens 6 connections to a server, and a stream keeps one.
const STREAMS_MAX = 2;
const ADDRESS =
  /\/(?:api\/jobs|api\/job-status|v1\/jobs|jobs)\/(?:job_)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$/;
let streams = 0;

export class PollError extends Error {
  name = "PollError";

  constructor(message, status = null, body = null) {
    super(message);
    Object.assign(this, { status, body });
  }
}

export async function poll(url, options = {}) {
  const { signal, onStatus, delays = [1, 2, 4, 8, 15], giveUp = 600, stream = true } = options;
  signal?.throwIfAborted();
  const end = new AbortController();
  const abort = () => end.abort(signal.reason);
  signal?.addEventListener("abort", abort, { once: true });
  const timer = setTimeout(() => end.abort(new PollError("Job polling timeout")), giveUp * 1000);
  const closing = new AbortController(); // of the stream
  let ended = stream ? watch(url, options.token, closing.signal) : never();
  try {
    for (let number = 0; ; number++) {
      const job = await status(url, options, end.signal, closing);
      onStatus?.(job);
      if (ENDED.has(job.status)) return job;
      const delay = delays[Math.min(number, delays.length - 1)];
      if (await pause(delay, end.signal, ended)) ended = never();
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    closing.abort();
  }
}

// The response to a request, which is repeated when the server could not serve it.
async function status(url, options, signal, closing) {
  for (let failures = 1; ; failures++) {
    let delay = Math.min(2 ** failures, 32);
    try {
      return await request(url, options, signal);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const final = error instanceof PollError && error.status < 500 && error.status !== 429;
      if (final || failures > RETRIES_MAX) throw error;
      delay = Math.max(delay, error.retryAfter ?? 0);
      closing.abort(); // the stream may occupy the connection that requests need
    }
    await pause(delay, signal);
  }
}

async function request(url, { token, requestTimeout = 10 }, signal) {
  const attempt = new AbortController();
  const abort = () => attempt.abort(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  const late = () => attempt.abort(new DOMException("Request timed out", "TimeoutError"));
  const timer = setTimeout(late, requestTimeout * 1000);
  try {
    const response = await fetch(url, { ...sent(token), signal: attempt.signal });
    const body = await response.json().catch((error) => {
      attempt.signal.throwIfAborted();
      return null;
    });
    if (response.ok && body !== null) return body;
    const message = body?.detail ?? body?.error ?? `Server error: ${response.status}`;
    const error = new PollError(message, response.status, body);
    const after = response.headers.get("Retry-After");
    if (/^\d+$/.test(after ?? "")) error.retryAfter = Number(after);
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

function sent(token, headers = {}) {
  if (token) headers.Authorization = `Bearer ${token}`;
  return { headers, redirect: "error", cache: "no-store" };
}

// Resolves to true when *early* does, and to false after so many seconds.
function pause(seconds, signal, early = never()) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      settle(value);
    };
    const abort = () => finish(reject, signal.reason);
    const timer = setTimeout(() => finish(resolve, false), seconds * 1000);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    early.then(() => finish(resolve, true));
  });
}

function never() {
  return new Promise(() => {});
}

// Resolves when the stream of the job shows its end; never where there is no stream of it.
async function watch(url, token, signal) {
  const address = String(url).replace(ADDRESS, "/v1/jobs/$1-$2-$3-$4-$5");
  if (!ADDRESS.test(url) || streams >= STREAMS_MAX) return never();
  streams++;
  try {
    const accept = { Accept: "text/event-stream" };
    const response = await fetch(address, { ...sent(token, accept), signal });
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      await response.body?.cancel();
      return never();
    }
    if (await showsEnd(response.body)) return true;
  } catch {
    // A stream that cannot be had or breaks is no error: requests show the end as well.
  } finally {
    streams--;
  }
  return never();
}

// Whether a snapshot in the stream says that the job has ended, or has gone.
async function showsEnd(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      if (/^event: gone$/m.test(frame)) return true;
      const data = /^event: job$/m.test(frame) && /^data: (.*)$/m.exec(frame);
      if (data && ENDED.has(JSON.parse(data[1]).status)) return true;
    }
  }
}
