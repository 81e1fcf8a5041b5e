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
  page_copied: "Link copied",
  page_not_copied: "Copy the address of this page",
};

// What the page has told already, in its language, counts.
for (const [key, text] of Object.entries(TEXTS)) texts[key] ??= text;

/** The text of this key, with its {holes} filled. Of plural forms the hole {count} chooses. */
export const say = sentence;
