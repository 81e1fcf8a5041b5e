/** Times in the words of the reader: in their own zone, and in the language of the page. */

import { language } from "./words.js";

/** Write each <time> in here in the reader's zone. */
export function localTimes(root) {
  const format = new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "medium" });
  for (const each of root.querySelectorAll("time[datetime]:not([data-part])")) {
    each.title = each.textContent;
    each.textContent = format.format(new Date(each.dateTime));
  }
}
