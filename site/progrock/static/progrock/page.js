/** The page at `/`: the form that starts jobs, and what the other modules show beside it. */

import { JobProgress, ProgressSocket, sentence } from "./progrock.js";
import { fillFrom } from "./again.js";
import { showComposer } from "./composer.js";
import { showConnection } from "./connection.js";
import { make, show } from "./dom.js";
import { showLeft } from "./left.js";
import { showJobs } from "./list.js";
import { offerNotifications } from "./notify.js";
import { presentOpen } from "./results.js";
import { showRunning } from "./running.js";
import { say } from "./words.js";

// The id of no job. The template writes the address of its page, because only Django knows it.
const NOBODY = "00000000-0000-0000-0000-000000000000";
const socket = ProgressSocket.shared();
const pageOf = (job) => document.getElementById("jobs").dataset.page.replace(NOBODY, job);

// A large result is on the page of its job.
JobProgress.format = ({ job, result, result_url: large }) =>
  large ? make("a", { href: pageOf(job) }, sentence("whole_result")) : presentOpen(result);

showConnection(socket);
const composer = showComposer(socket);
showJobs(socket, { pageOf, again, change });
showLeft(socket);
showRunning(socket);
offerNotifications(socket, { pageOf });

const asked = new URLSearchParams(location.search).get("again"); // by the page of a job
if (asked) {
  history.replaceState(history.state, "", location.pathname);
  change(asked);
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

/** Fill in the form with the params of a job. */
async function change(job) {
  const done = await fillFrom(pageOf(job), composer);
  show("list-problem", done ? "" : say("page_not_loaded"));
}
