/** The page at `/`: the form that starts jobs, their list, and the state of the connection. */

import { ProgressSocket, announceConnection } from "./progrock.js";

const socket = ProgressSocket.shared();
const byId = (id) => document.getElementById(id);
const form = byId("start");
const list = byId("jobs");
const CONNECTION = {
  connecting: "Connecting",
  live: "Live",
  delayed: "Delayed",
  offline: "Offline",
  refused: "Signed out",
};

let unsent = 0; // starts that the server has not answered

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { backend, seconds, outcome } = form.elements;
  show("problem", "");
  tellUnsent(1);
  try {
    await socket.start({
      backend: backend.value || undefined,
      params: { seconds: seconds.valueAsNumber, outcome: outcome.value },
    });
  } catch (error) {
    show("problem", error.message);
  } finally {
    tellUnsent(-1);
  }
});

socket.addEventListener("error", ({ detail }) => show("problem", detail.message));
socket.addEventListener("snapshot", ({ detail }) => {
  offer(detail.backends);
  reconcile(detail.jobs);
});
socket.addEventListener("job", ({ detail }) => {
  if (!card(detail.job)) list.prepend(makeCard(detail.job));
  summarise();
});
socket.addEventListener("state", ({ detail }) => {
  announceConnection(detail);
  tellState();
});
tellState();

function show(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

function tellState() {
  const { state, message } = socket;
  byId("connection").dataset.state = state;
  show("connection-word", CONNECTION[state]);
  show("notice-text", state === "live" ? "" : message);
  byId("notice").hidden = state === "live" || !message;
  byId("notice-link").hidden = state !== "refused";
  byId("go").disabled = state === "refused";
  tellUnsent(0);
}

/** Show how many starts wait for a connection; `change` is added to their number. */
function tellUnsent(change) {
  unsent += change;
  const some = unsent === 1 ? "1 job starts" : `${unsent} jobs start`;
  const waits = unsent && socket.state === "offline";
  show("unsent", waits ? `${some} as soon as the connection is back.` : "");
}

/** Offer these backends; keep what was chosen. */
function offer(backends) {
  const select = form.elements.backend;
  const names = backends.filter(({ start }) => start).map(({ name }) => name);
  if (names.join() === [...select.options].map(({ value }) => value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}

function card(job) {
  return list.querySelector(`[data-job="${CSS.escape(job)}"]`);
}

function makeCard(job) {
  const item = document.createElement("li");
  const element = document.createElement("job-progress");
  item.dataset.job = job;
  element.setAttribute("job", job);
  item.append(element);
  return item;
}

/** Show the snapshot's jobs, newest first. A card that may stay where it is is not touched. */
function reconcile(jobs) {
  const wanted = new Set(jobs.map(({ job }) => job));
  for (const item of [...list.children]) {
    if (wanted.has(item.dataset.job)) continue;
    if (item.contains(document.activeElement)) byId("jobs-title").focus();
    item.remove();
  }
  let next = list.firstElementChild;
  for (const { job } of jobs) {
    if (next?.dataset.job === job) next = next.nextElementSibling;
    else list.insertBefore(card(job) ?? makeCard(job), next);
  }
  summarise();
}

function summarise() {
  const jobs = [...socket.jobs.values()];
  const active = jobs.filter(({ complete }) => !complete).length;
  show("summary", jobs.length ? `${active} active, ${jobs.length - active} ended` : "");
  byId("empty").hidden = jobs.length > 0 || socket.state === "connecting";
}
