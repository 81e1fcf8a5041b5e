/** Every sentence that the scripts of the pages say. progrock/texts.py has the same ones. */

import { sentence, texts } from "./progrock.js";

const TEXTS = {
  page_connecting: "Connecting",
  page_live: "Live",
  page_delayed: "Delayed",
  page_offline: "Offline",
  page_refused: "Signed out",
  page_no_audience: "No access",
  page_unsent: {
    one: "{count} job starts as soon as the connection is back.",
    other: "{count} jobs start as soon as the connection is back.",
  },
  page_summary: "{active} active, {ended} ended",
  page_again: "Run again",
  page_change: "Change and run",
  page_more: {
    one: "{count} more job is shown",
    other: "{count} more jobs are shown",
  },
  page_found: { one: "{count} job matches", other: "{count} jobs match" },
  page_notify_on: "You will be notified when a job ends while this page is hidden.",
  page_notify_off: "Notifications are off.",
  page_notify_denied:
    "Your browser blocks notifications of this page. Allow them in its settings for this site.",
  page_notify_several: { one: "{count} job has ended", other: "{count} jobs have ended" },
  page_notify_succeeded: "{name} succeeded",
  page_notify_failed: "{name} failed",
  page_notify_cancelled: "{name} was cancelled",
  page_notify_expired: "{name} expired",
  page_copied: "Link copied",
  page_not_copied: "Copy the address of this page",
  page_left: "about {time} left",
  page_rows: { one: "{count} row", other: "{count} rows" },
  page_some_rows: "{shown} of {count} rows",
  page_long: "Show it",
  page_load: "Load it here",
  page_loading: "Loading…",
  page_not_loaded: "It could not be loaded. Try again.",
};

// The texts that the page brought with it, in its language, stay.
for (const [key, text] of Object.entries(TEXTS)) texts[key] ??= text;

/** The text of this key, with its {holes} filled. The hole {count} chooses the plural form. */
export const say = sentence;

/** What a job is called, as on its card. */
export const nameOf = ({ label, backend, job }) =>
  label || sentence("name", { backend, id: job.slice(0, 4) });

/** The language of the page, for numbers and times. */
export const language = () => document.documentElement.lang || undefined;
