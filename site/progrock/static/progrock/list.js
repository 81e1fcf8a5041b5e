/**
 * The list of the visitor's jobs on the page at `/`, newest first: those that the socket tells of,
 * and older ones that are asked for. The filter applies to both.
 */

import { announce } from "./progrock.js";
import { make, show } from "./dom.js";
import { isEmpty, matches, offerBackends, readFilter, writeFilter } from "./filter.js";
import { Older } from "./older.js";
import { nameOf, say } from "./words.js";

const TYPING = 250; // ms after a letter, before the server is asked
const MANY = 50; // ended jobs in a snapshot: when there are so many, there may be more

/**
 * Show the jobs of this socket in the page's list, from now on. `pageOf(id)` is the address of a
 * job's page, `again(id)` runs a job once more, and `change(id)` fills in the form with its params.
 */
export function showJobs(socket, { pageOf, again, change }) {
  const byId = (id) => document.getElementById(id);
  const [list, form, more] = [byId("jobs"), byId("filter"), byId("more")];
  const older = new Older(list.dataset.jobs);
  let typing;

  readFilter(form);
  socket.addEventListener("snapshot", ({ detail }) => {
    if (socket.state === "refused") older.forget();
    offerBackends(form, detail.backends);
    render();
    if (older.isFresh && socket.state !== "refused") search();
  });
  socket.addEventListener("job", ({ detail }) => {
    const known = card(detail.job);
    if (known) complete(known, detail);
    if (known && isEmpty(form)) summarise();
    else render();
  });
  document.addEventListener("progrock-texts", () => summarise());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filtered)); // after the fields are empty
  form.addEventListener("input", filtered);
  byId("all-again").addEventListener("click", () => {
    form.reset();
    form.elements.q.focus();
  });
  more.addEventListener("click", () => more.ariaDisabled || load());

  /** The filter has changed. */
  function filtered() {
    writeFilter(form);
    older.restart();
    render();
    clearTimeout(typing);
    typing = setTimeout(search, TYPING);
    announce("filter", say("page_found", { count: shown().length }));
  }

  /** Ask the server for what this page does not know and the filter wants. */
  function search() {
    if (!isEmpty(form)) load({ isSearch: true });
  }

  /** Show the next page of older jobs. */
  async function load({ isSearch = false } = {}) {
    const before = new Set(shown().map(({ job }) => job));
    more.ariaDisabled = "true"; // `disabled` would lose the focus
    show("list-problem", "");
    const found = await older.load(form, (job) => !isSearch && before.has(job));
    more.ariaDisabled = null;
    if (!found) return; // another question was asked meanwhile
    if (found.problem) show("list-problem", say("page_not_loaded"));
    render();
    if (isSearch || found.problem) return;
    const fresh = shown().filter(({ job }) => !before.has(job));
    announce("older", say("page_more", { count: fresh.length }));
    if (!more.hidden) return; // the focus stays at the button
    const next = fresh.length ? card(fresh[0].job).firstElementChild : byId("jobs-title");
    next.focus();
  }

  /** The jobs to show, newest first. */
  function shown() {
    const all = new Map([...older.jobs, ...socket.jobs]);
    return [...all.values()]
      .filter((job) => matches(form, job))
      .sort((one, other) => (one.created < other.created ? 1 : -1));
  }

  function render() {
    const jobs = shown();
    const wanted = new Set(jobs.map(({ job }) => job));
    for (const item of [...list.children]) {
      if (wanted.has(item.dataset.job)) continue;
      if (item.contains(document.activeElement)) byId("jobs-title").focus();
      item.remove();
    }
    let next = list.firstElementChild;
    for (const job of jobs) {
      if (next?.dataset.job === job.job) next = next.nextElementSibling;
      else list.insertBefore(card(job.job) ?? makeCard(job), next);
    }
    summarise(jobs.length);
  }

  function summarise(count = list.childElementCount) {
    const jobs = [...socket.jobs.values()];
    const active = jobs.filter(({ complete }) => !complete).length;
    const ended = jobs.length - active;
    show("summary", jobs.length ? say("page_summary", { active, ended }) : "");
    const none = jobs.length + older.jobs.size === 0;
    form.hidden = none && isEmpty(form);
    byId("empty").hidden = !none || !isEmpty(form) || socket.state === "connecting";
    byId("none").hidden = count > 0 || isEmpty(form);
    more.hidden = !(older.hasMore ?? (isEmpty(form) && ended >= MANY));
  }

  function card(job) {
    return list.querySelector(`[data-job="${CSS.escape(job)}"]`);
  }

  function makeCard(job) {
    const item = make("li");
    const element = make("job-progress");
    const name = make("a", { href: pageOf(job.job) });
    const left = make("span", { className: "left", hidden: true });
    const act = (text, action) => {
      const button = make("button", { type: "button", className: "link" }, text);
      button.setAttribute("aria-label", `${text}: ${nameOf(job)}`);
      button.addEventListener("click", () => action(job.job));
      return button;
    };
    const foot = make("p", { className: "foot" });
    foot.append(act(say("page_again"), again), act(say("page_change"), change));
    item.dataset.job = job.job;
    name.dataset.part = "name";
    left.dataset.left = job.job;
    element.append(name, left);
    element.job = job;
    item.append(element, foot);
    complete(item, job);
    return item;
  }

  /** Offer to run a job again once it has ended, where browsers may start its backend. */
  function complete(item, job) {
    const able = socket.backends.find(({ name }) => name === job.backend)?.start;
    item.lastElementChild.hidden = !job.complete || !able;
  }
}
