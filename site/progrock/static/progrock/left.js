/** Shows beside running jobs how long they may still take (pace.js says how long that is). */

import { rough, secondsLeft, steady, withSample } from "./pace.js";
import { language, say } from "./words.js";

const LOOK = 2_000; // ms between two looks at the clock

/**
 * Keep the elements with `data-left="<job>"` on the page up to date. Each is hidden while there is
 * nothing to say.
 */
export function showLeft(socket) {
  const samples = new Map(); // of the running jobs, by id
  const shown = new Map(); // what is shown of them, in seconds

  const note = (job) => {
    if (job.state !== "running" || job.progress === null || job.cancelling) samples.delete(job.job);
    else {
      const known = samples.get(job.job) ?? [];
      samples.set(job.job, withSample(known, performance.now() / 1_000, job.progress));
    }
  };
  const tell = () => {
    const now = performance.now() / 1_000;
    for (const element of document.querySelectorAll("[data-left]")) {
      const job = element.dataset.left;
      const before = shown.get(job) ?? null;
      const next = steady(before, secondsLeft(samples.get(job) ?? [], now));
      shown.set(job, next);
      const text = next === null ? "" : say("page_left", { time: words(next) });
      if (element.textContent !== text) element.textContent = text;
      element.hidden = !text;
    }
  };

  socket.addEventListener("job", ({ detail }) => {
    note(detail);
    tell();
  });
  socket.addEventListener("snapshot", ({ detail }) => {
    const there = new Set(detail.jobs.map(({ job }) => job));
    for (const job of samples.keys()) if (!there.has(job)) samples.delete(job);
    detail.jobs.forEach(note);
    tell();
  });
  socket.jobs.forEach(note);
  setInterval(tell, LOOK);
}

/** Seconds in the words of the page's language, such as "3 minutes". */
function words(seconds) {
  const [number, unit] = rough(seconds);
  const style = { style: "unit", unit, unitDisplay: "long" };
  return new Intl.NumberFormat(language(), style).format(number);
}
