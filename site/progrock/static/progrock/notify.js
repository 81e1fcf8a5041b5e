/**
 * Tells the visitor by a notification of the system that a job has ended while the page was hidden.
 * A button turns that on and off, and this browser remembers the choice.
 */

import { announce } from "./progrock.js";
import { show } from "./dom.js";
import { nameOf, say } from "./words.js";

const KEPT = "progrock-notify"; // in localStorage
const SEVERAL = 3; // jobs that end at once; more than these get one notification for all

/**
 * Make the button with the id "notify", if there is one, turn notifications on and off.
 * `pageOf(id)` is the address of a job's page, to which a notification leads.
 */
export function offerNotifications(socket, { pageOf }) {
  const button = document.getElementById("notify");
  if (!button || !("Notification" in window)) return;
  const active = new Set(); // the ids of jobs that had not ended when last heard of

  button.hidden = false;
  button.addEventListener("click", async () => {
    if (isOn()) keep(false);
    else if ((await Notification.requestPermission()) === "granted") keep(true);
    tell();
    const problem = Notification.permission === "denied" ? say("page_notify_denied") : "";
    show("notify-problem", problem);
    announce("notify", problem || say(isOn() ? "page_notify_on" : "page_notify_off"));
  });
  socket.addEventListener("job", ({ detail }) => look([detail]));
  socket.addEventListener("snapshot", ({ detail }) => look(detail.jobs));
  look([...socket.jobs.values()]);
  tell();

  function tell() {
    button.setAttribute("aria-pressed", isOn());
  }

  /** Notify of those jobs that were active before and have ended now. */
  function look(jobs) {
    const ended = jobs.filter(({ job, complete }) => complete && active.delete(job));
    for (const { job, complete } of jobs) if (!complete) active.add(job);
    if (!ended.length || !document.hidden || !isOn()) return;
    if (ended.length > SEVERAL) {
      notify(say("page_notify_several", { count: ended.length }), { tag: "progrock" });
      return;
    }
    for (const job of ended) {
      const title = say(`page_notify_${job.state}`, { name: nameOf(job) });
      notify(title, { tag: job.job, body: job.error ?? job.message }, pageOf(job.job));
    }
  }

  function notify(title, options, address) {
    try {
      const icon = document.querySelector("link[rel=icon]").href;
      const notification = new Notification(title, { icon, ...options });
      notification.onclick = () => {
        window.focus();
        if (address) location.assign(address);
      };
    } catch {
      keep(false); // Android wants a service worker, and fails only here
      button.hidden = true;
    }
  }
}

function isOn() {
  return Notification.permission === "granted" && kept() === "on";
}

function kept() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null; // the browser lets no page keep anything
  }
}

function keep(on) {
  try {
    localStorage.setItem(KEPT, on ? "on" : "off");
  } catch {
    // Then it cannot be turned on.
  }
}
