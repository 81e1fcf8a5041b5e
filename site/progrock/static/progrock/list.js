/** The list of the visitor's jobs on the page at `/`, newest first. */

import { make, show } from "./dom.js";
import { say } from "./words.js";

/** Show the jobs of this socket in the page's list, from now on. */
export function showJobs(socket) {
  const byId = (id) => document.getElementById(id);
  const list = byId("jobs");
  const pageOf = (job) => list.dataset.page.replace(NOBODY, job);

  socket.addEventListener("snapshot", ({ detail }) => reconcile(detail.jobs));
  socket.addEventListener("job", ({ detail }) => {
    if (!card(detail.job)) list.prepend(makeCard(detail.job));
    summarise();
  });
  document.addEventListener("progrock-texts", summarise);

  function card(job) {
    return list.querySelector(`[data-job="${CSS.escape(job)}"]`);
  }

  function makeCard(job) {
    const item = make("li");
    const element = make("job-progress");
    const name = make("a", { href: pageOf(job) });
    item.dataset.job = job;
    name.dataset.part = "name";
    element.setAttribute("job", job);
    element.append(name);
    item.append(element);
    return item;
  }

  /** Show these jobs, newest first. A card that may stay where it is is not touched. */
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
    const values = { active, ended: jobs.length - active };
    show("summary", jobs.length ? say("page_summary", values) : "");
    byId("empty").hidden = jobs.length > 0 || socket.state === "connecting";
  }
}

// The id of no job. The template writes the address of its page, because only Django knows it.
const NOBODY = "00000000-0000-0000-0000-000000000000";
