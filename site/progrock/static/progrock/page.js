/** The page at `/`: the form that starts jobs, and what the other modules show beside it. */

import { ProgressSocket } from "./progrock.js";
import { showComposer } from "./composer.js";
import { showConnection } from "./connection.js";
import { show } from "./dom.js";
import { showLeft } from "./left.js";
import { showJobs } from "./list.js";
import { offerNotifications } from "./notify.js";
import { showRunning } from "./running.js";

// The id of no job. The template writes the address of its page, because only Django knows it.
const NOBODY = "00000000-0000-0000-0000-000000000000";
const socket = ProgressSocket.shared();
const pageOf = (job) => document.getElementById("jobs").dataset.page.replace(NOBODY, job);

showConnection(socket);
showComposer(socket);
showJobs(socket, { pageOf, again });
showLeft(socket);
showRunning(socket);
offerNotifications(socket, { pageOf });

/** Run a job again. */
async function again(job) {
  show("list-problem", "");
  try {
    await socket.again(job);
  } catch (error) {
    show("list-problem", error.message);
  }
}
