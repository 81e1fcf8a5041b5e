/** Jobs that are older than what the socket tells of: asked for over HTTP, page by page. */

import { asQuery } from "./filter.js";

/** The older jobs that this page knows, and whether there are more of them. */
export class Older {
  jobs = new Map(); // by id, as frames; all of them have ended
  hasMore = null; // of what the filter wants: true, false, or null before the first answer
  #address;
  #next = null;
  #question = new AbortController();

  /** `address` is that of `GET jobs`. */
  constructor(address) {
    this.#address = address;
  }

  /** Whether nothing was asked for yet. */
  get isFresh() {
    return this.hasMore === null;
  }

  /** Begin anew with the first page, as for another filter. What is known stays known. */
  restart() {
    this.#question.abort();
    this.#question = new AbortController();
    this.#next = null;
    this.hasMore = null;
  }

  /** Forget all jobs: they are no longer this visitor's to see. */
  forget() {
    this.restart();
    this.jobs.clear();
  }

  /**
   * Ask for the next page that holds a job which `isShown(id)` does not know. Returns {problem}:
   * whether that failed; or null where `restart` came first.
   */
  async load(form, isShown) {
    const { signal } = this.#question;
    const headers = { Accept: "application/json" };
    for (;;) {
      const query = asQuery(form);
      const address = this.#next ?? this.#address + (query.size ? `?${query}` : "");
      let found;
      try {
        const answer = await fetch(address, { headers, signal });
        found = answer.ok && (await answer.json());
      } catch {
        if (signal.aborted) return null;
      }
      if (!found) return { problem: true };
      const ended = found.jobs.filter(({ complete }) => complete);
      for (const job of ended) this.jobs.set(job.job, job);
      this.#next = found.next;
      this.hasMore = found.next !== null;
      if (!this.hasMore || !ended.every(({ job }) => isShown(job))) return { problem: false };
    }
  }
}
