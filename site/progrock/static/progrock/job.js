/**
 * The page of one job. The server has written all that it shows. This keeps it up to date, by
 * asking for the page again when the job's state has changed, and makes the buttons work.
 */

import { ProgressSocket, announce } from "./progrock.js";
import { showConnection } from "./connection.js";
import { make, show } from "./dom.js";
import { showLeft } from "./left.js";
import { offerNotifications } from "./notify.js";
import { presentText } from "./results.js";
import { showRunning } from "./running.js";
import { localTimes } from "./times.js";
import { say } from "./words.js";

const page = document.getElementById("job");
const id = page.dataset.job;
const pageOf = (job) => location.pathname.replace(id, job);
let shown = page.dataset.stage; // what the page shows; with "" the next look asks for the page
let asked = Promise.resolve();

complete(page);
offerLink(document.getElementById("copy"));
if (page.dataset.own) follow(ProgressSocket.shared());

/** Keep the page up to date by this socket. */
function follow(socket) {
  const left = make("span", { className: "left", hidden: true });
  left.dataset.left = id;
  page.querySelector("job-progress").append(left);
  showConnection(socket);
  showLeft(socket);
  showRunning(socket);
  offerNotifications(socket, { pageOf });
  offerAgain(socket, document.getElementById("again"));
  socket.addEventListener("job", ({ detail }) => detail.job === id && look(detail));
  const lookUp = () => socket.jobs.has(id) && look(socket.jobs.get(id));
  socket.addEventListener("snapshot", lookUp);
  lookUp(); // the element may have connected before this script came
  socket.addEventListener("refused", () => {
    document.getElementById("known").hidden = true; // it is no longer this visitor's to see
  });
}

/** Write the page anew where the job has come to another state; mere progress changes nothing. */
function look({ state, cancelling }) {
  const now = `${state} ${cancelling}`;
  if (now === shown) return;
  shown = now;
  asked = asked.then(write);
}

/** Ask the server for this page, and take over the parts of it that change. */
async function write() {
  const answer = await fetch(location.pathname, { headers: { Accept: "text/html" } }).catch(
    () => null,
  );
  if (!answer?.ok) {
    shown = ""; // the next change, or the next connection, asks again
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of page.querySelectorAll("[data-fresh]")) {
    const found = fresh.getElementById(part.id);
    if (!found) continue;
    complete(document.adoptNode(found));
    if (found.innerHTML !== part.innerHTML) part.replaceWith(found);
  }
}

/** Show times in the reader's zone, and results as links and tables. */
function complete(part) {
  localTimes(part);
  for (const text of part.querySelectorAll("[data-result]")) {
    text.replaceWith(presentText(text.textContent));
  }
  for (const place of part.querySelectorAll("[data-large]")) offerLarge(place);
}

/** Offer to load a large result. */
function offerLarge(place) {
  const button = make("button", { type: "button", className: "secondary" }, say("page_load"));
  place.before(button);
  button.addEventListener("click", async () => {
    button.textContent = say("page_loading");
    const answer = await fetch(place.href).catch(() => null);
    const text = answer?.ok && (await answer.text().catch(() => null));
    if (text) button.replaceWith(presentText(text));
    else button.textContent = say("page_not_loaded");
  });
}

/** Once the job has ended, offer to run it again. The new job has a page of its own. */
function offerAgain(socket, button) {
  socket.addEventListener("snapshot", tell);
  socket.addEventListener("job", tell);
  tell();
  button.addEventListener("click", async () => {
    show("problem", "");
    try {
      location.assign(pageOf((await socket.again(id)).job));
    } catch (error) {
      show("problem", error.message);
    }
  });

  function tell() {
    const { backend } = page.dataset;
    const ended = socket.jobs.get(id)?.complete ?? page.dataset.ended;
    const able = ended && socket.backends.find(({ name }) => name === backend)?.start;
    button.hidden = document.getElementById("change").hidden = !able;
  }
}

/** Make the button that copies this page's address. */
function offerLink(button) {
  const before = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = say((await copied(location.href)) ? "page_copied" : "page_not_copied");
    button.textContent = done;
    announce("copy", done);
    setTimeout(() => (button.textContent = before), 3_000);
  });
}

/** Copy a text; returns whether that worked. On plain http there is no `navigator.clipboard`. */
async function copied(text) {
  if (!navigator.clipboard) return false;
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => false,
  );
}
