/** The filter over the list of jobs. The page's address keeps what was chosen. */

import { make } from "./dom.js";

const NAMES = ["state", "backend", "q"];

/** Fill in the form from the page's address. */
export function readFilter(form) {
  const asked = new URLSearchParams(location.search);
  for (const name of NAMES) {
    const [field, value] = [form.elements[name], asked.get(name) ?? ""];
    // A backend is offered only later, so keep its name for now.
    if (name === "backend" && value) field.append(make("option", { value }, value));
    field.value = value;
    if (field.value !== value) field.value = ""; // no such state
  }
}

/** Keep the filter in the page's address, so that it survives a reload and can be passed on. */
export function writeFilter(form) {
  const query = String(asQuery(form));
  history.replaceState(history.state, "", location.pathname + (query && `?${query}`));
}

/** The filter as the query of `GET jobs`. */
export function asQuery(form) {
  const query = new URLSearchParams();
  for (const name of NAMES) {
    const value = form.elements[name].value.trim();
    if (value) query.set(name, value);
  }
  return query;
}

/** Whether all jobs are wanted. */
export function isEmpty(form) {
  return NAMES.every((name) => !form.elements[name].value.trim());
}

/** Whether the filter lets a job through; the server decides alike. */
export function matches(form, job) {
  const { state, backend, q } = form.elements;
  const text = q.value.trim().toLowerCase();
  const states = { "": true, active: !job.complete, ended: job.complete };
  return (
    (states[state.value] ?? job.state === state.value) &&
    (!backend.value || backend.value === job.backend) &&
    [job.label, job.message, job.job].some((each) => (each ?? "").toLowerCase().includes(text))
  );
}

/** Offer these backends; keep what was chosen. One alone is no choice. */
export function offerBackends(form, backends) {
  const select = form.elements.backend;
  const chosen = select.value;
  const [all] = select.options;
  const offered = backends.map(({ name, title }) => make("option", { value: name }, title ?? name));
  if (chosen && !backends.some(({ name }) => name === chosen)) {
    offered.push(make("option", { value: chosen }, chosen));
  }
  select.replaceChildren(all, ...offered);
  select.value = chosen;
  select.closest(".field").hidden = offered.length < 2;
}
