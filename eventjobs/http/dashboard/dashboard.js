// The newest jobs, live, from the public API. Text of users is only set as text content.
"use strict";

const ROWS_MAX = 100;
const jobs = new Map(); // job_id -> {job, row}
const body = document.getElementById("jobs");
const connection = document.getElementById("connection");
let backoff = 1000;
let session = null; // who is logged in

// Shows who is logged in, and connects.
async function start() {
  const response = await request("/v1/session");
  if (!response?.ok) {
    showState("reconnecting");
    retry(start);
    return;
  }
  session = await response.json();
  const anonymous = session.owner === "anonymous";
  document.getElementById("anonymous").hidden = !anonymous;
  document.getElementById("empty").hidden = anonymous;
  if (anonymous) {
    showState("not logged in");
    return;
  }
  showUser();
  connect();
}

function showUser() {
  const user = document.getElementById("user");
  user.hidden = session.mode === "off";
  user.firstElementChild.textContent = session.owner ?? session.name;
  user.title = session.name;
}

async function logOut() {
  const response = await request("/v1/session", { method: "DELETE" });
  if (response?.ok) location.assign("/login");
}

function logIn(ended) {
  showState(ended ? "session ended" : "not logged in");
  const page = location.pathname + location.search + location.hash;
  location.replace(`/login?next=${encodeURIComponent(page)}${ended ? "&ended" : ""}`);
}

function retry(action) {
  setTimeout(action, backoff * (0.5 + Math.random()));
  backoff = Math.min(backoff * 2, 30000);
}

function connect() {
  const source = new EventSource("/v1/jobs");
  source.onopen = () => {
    backoff = 1000;
    showState("live");
  };
  source.addEventListener("job", (event) => show(JSON.parse(event.data)));
  source.addEventListener("gone", (event) => remove(JSON.parse(event.data).job_id));
  source.addEventListener("reset", () => {
    jobs.clear();
    body.replaceChildren();
  });
  source.onerror = () => {
    showState("reconnecting");
    // An EventSource closes after any response but 200, and does not say which one it was.
    if (source.readyState === EventSource.CLOSED) reconnect();
  };
}

async function reconnect() {
  const response = await request("/v1/jobs?limit=1");
  if (response?.status === 403) showState((await response.json()).detail);
  else retry(connect);
}

function showState(state) {
  connection.textContent = state;
  connection.dataset.state = state;
}

function show(job) {
  let entry = jobs.get(job.job_id);
  if (entry && entry.job.version > job.version) return;
  if (!entry) {
    entry = { row: newRow(job) };
    jobs.set(job.job_id, entry);
    place(entry.row, job);
  }
  entry.job = job;
  fill(entry.row, job);
  trim();
  document.getElementById("empty").hidden = jobs.size > 0;
  count();
}

function remove(jobId) {
  jobs.get(jobId)?.row.remove();
  jobs.delete(jobId);
  document.getElementById("empty").hidden = jobs.size > 0;
  count();
}

function newRow(job) {
  const row = document.createElement("tr");
  row.dataset.jobId = job.job_id;
  row.dataset.created = job.created_at;
  for (let column = 0; column < 7; column++) row.append(document.createElement("td"));
  const bar = document.createElement("progress");
  bar.max = 100;
  row.cells[2].append(bar, document.createElement("span"));
  row.addEventListener("click", () => showHistory(job.job_id));
  return row;
}

function place(row, job) {
  const after = [...body.rows].find((other) => other.dataset.created < job.created_at);
  body.insertBefore(row, after ?? null);
}

function fill(row, job) {
  const [type, status, progress, message, attempt, created, actions] = row.cells;
  type.textContent = job.type;
  status.textContent = job.status;
  row.dataset.status = job.status;
  progress.firstChild.value = job.progress;
  progress.firstChild.setAttribute("aria-label", `progress of ${job.type}`);
  progress.lastChild.textContent = `${Math.round(job.progress)} %${remaining(job)}`;
  message.textContent = job.error ? `${job.error.code}: ${job.error.message}` : (job.message ?? "");
  attempt.textContent = `${job.attempt}`;
  created.textContent = clock(job.created_at);
  created.title = job.created_at;
  actions.replaceChildren();
  if (job.status === "queued" || job.status === "running") actions.append(button(job, "cancel"));
  if (job.can_retry) actions.append(button(job, "retry"));
}

function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}

function remaining(job) {
  if (job.pace === "slower") return " · slower than usual";
  if (job.pace === "stalled") return " · stalled";
  return job.remaining_s ? ` · ${job.remaining_s.low} to ${job.remaining_s.high} s left` : "";
}

function button(job, command) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = command;
  element.addEventListener("click", async (event) => {
    event.stopPropagation();
    element.disabled = true;
    const response = await request(`/v1/jobs/${job.job_id}/${command}`, { method: "POST" });
    if (response && !response.ok) showState((await response.json()).detail);
  });
  return element;
}

// The response, or null while the service cannot be reached, which the stream shows already. With
// a session that has ended, the page is left.
async function request(url, options) {
  try {
    const response = await fetch(url, options);
    if (response.status !== 401) return response;
    const problem = await response.json();
    logIn(session !== null || problem.code === "invalid_credential");
    return await new Promise(() => {});
  } catch {
    return null;
  }
}

async function showHistory(jobId) {
  const response = await request(`/v1/jobs/${jobId}/history`);
  if (!response?.ok) return;
  const history = await response.json();
  const section = document.getElementById("history");
  section.hidden = false;
  section.querySelector("h2").textContent = jobId;
  section.querySelector("ol").replaceChildren(
    ...history.entries.map((entry) => {
      const line = document.createElement("li");
      line.textContent = `${clock(entry.at)}  ${entry.text} (${entry.actor})`;
      return line;
    }),
  );
  const trace = history.attempts.map((attempt) => attempt.error?.trace).findLast(Boolean);
  const pre = section.querySelector("pre");
  pre.hidden = !trace;
  pre.textContent = trace ?? "";
}

function trim() {
  while (body.rows.length > ROWS_MAX) {
    jobs.delete(body.lastElementChild.dataset.jobId);
    body.lastElementChild.remove();
  }
}

let counting = false;
async function count() {
  if (counting) return;
  counting = true;
  await new Promise((resume) => setTimeout(resume, 500));
  counting = false;
  const response = await request("/v1/counts");
  if (!response?.ok) return;
  const totals = {};
  for (const statuses of Object.values((await response.json()).counts)) {
    for (const [status, n] of Object.entries(statuses)) totals[status] = (totals[status] ?? 0) + n;
  }
  document.getElementById("counts").textContent = Object.entries(totals)
    .map(([status, n]) => `${n} ${status}`)
    .join(" · ");
}

document.querySelector("#user button").addEventListener("click", logOut);
// After a logout, the browser's button Back would show the list as it was.
addEventListener("pageshow", (event) => event.persisted && location.reload());
start();
