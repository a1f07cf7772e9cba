// Logs in with a key or token, and returns to the page that asked for it.
"use strict";

const parameters = new URLSearchParams(location.search);
const form = document.getElementById("login");
const input = document.getElementById("credential");
const error = document.getElementById("error");
const submit = form.querySelector("button");

// A page of this service. Its whole URL is used: a path such as //host would be another site.
function destination() {
  const next = parameters.get("next") ?? "/";
  if (!next.startsWith("/")) return location.origin;
  try {
    const url = new URL(next, location.origin);
    return url.origin === location.origin ? url.href : location.origin;
  } catch {
    return location.origin;
  }
}

async function request(method, body) {
  const options = { method };
  if (body) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  try {
    return await fetch("/v1/session", options);
  } catch {
    return null;
  }
}

async function logIn(event) {
  event.preventDefault();
  error.textContent = "";
  submit.disabled = true;
  const response = await request("POST", { credential: input.value.trim() });
  const failure = response?.ok ? await checkCookie(response) : await explanation(response);
  submit.disabled = false;
  if (!failure) {
    location.replace(destination());
    return;
  }
  error.textContent = failure;
  input.select();
  input.focus();
}

async function checkCookie(response) {
  const session = await response.json();
  const current = await request("GET");
  const kept = current?.ok && (await current.json()).name === session.name;
  return kept ? "" : "The browser did not keep the cookie of the session.";
}

async function explanation(response) {
  if (!response) return "The service cannot be reached.";
  const problem = await response.json().catch(() => null);
  if (problem?.code === "invalid_credential") {
    return "This key or token is not valid: it is mistyped, expired or revoked.";
  }
  return problem?.detail ?? `The service answered ${response.status}.`;
}

async function start() {
  document.getElementById("notice").hidden = !parameters.has("ended");
  const response = await request("GET");
  if (response?.status === 401) await request("DELETE"); // a cookie that is no longer valid
  if (!response?.ok) return;
  const session = await response.json();
  if (session.mode === "off") location.replace(destination());
  document.getElementById("anonymous").hidden = session.mode !== "optional";
}

form.addEventListener("submit", logIn);
start();
