/** The page at `/`: the form that starts jobs, and what the other modules show beside it. */

import { ProgressSocket } from "./progrock.js";
import { showConnection } from "./connection.js";
import { show } from "./dom.js";
import { showLeft } from "./left.js";
import { showJobs } from "./list.js";
import { offerNotifications } from "./notify.js";
import { showRunning } from "./running.js";
import { say } from "./words.js";

// The id of no job. The template writes the address of its page, because only Django knows it.
const NOBODY = "00000000-0000-0000-0000-000000000000";
const socket = ProgressSocket.shared();
const byId = (id) => document.getElementById(id);
const form = byId("start");
const pageOf = (job) => byId("jobs").dataset.page.replace(NOBODY, job);

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
socket.addEventListener("snapshot", ({ detail }) => offer(detail.backends));
socket.addEventListener("state", tellState);
showConnection(socket);
showJobs(socket, { pageOf, again });
showLeft(socket);
showRunning(socket);
offerNotifications(socket, { pageOf });
tellState();

function tellState() {
  byId("go").disabled = socket.state === "refused";
  tellUnsent(0);
}

/** Run a job again. */
async function again(job) {
  show("list-problem", "");
  try {
    await socket.again(job);
  } catch (error) {
    show("list-problem", error.message);
  }
}

/** Show how many starts wait for a connection; `change` is added to their number. */
function tellUnsent(change) {
  unsent += change;
  const waits = unsent && socket.state === "offline";
  show("unsent", waits ? say("page_unsent", { count: unsent }) : "");
}

/** Offer these backends; keep what was chosen. */
function offer(backends) {
  const select = form.elements.backend;
  const names = backends.filter(({ start }) => start).map(({ name }) => name);
  if (names.join() === [...select.options].map(({ value }) => value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
}
