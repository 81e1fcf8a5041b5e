/**
 * ProgRock in a browser: a socket that outlives outages, and an element that shows a job. One file without dependencies or build step,
 * so that a page needs to name only this.
 *
 *     import { ProgressSocket } from "/static/progrock/progrock.js";
 *     const socket = ProgressSocket.shared();                       // or new ProgressSocket("/prog/")
 *     const job = await socket.start({ backend: "render", params: { seconds: 10 } });
 *     socket.addEventListener("job", ({ detail }) => console.log(detail.job, detail.state, detail.progress));
 *
 *     <job-progress job="5b0c…"></job-progress>                     shows that job and can cancel it; style it as you like
 *
 * A `job` is the server's frame: {job, request, backend, version, state, progress, complete, message, cancelling, created,
 * ended, result | result_url | error}. A string in it is text, never HTML. docs/wire.md says more.
 */

const MAX_FRAME = 65_536; // bytes; the server reads no longer ones
const SILENCE = 45_000; // ms without a frame, beats included: the connection is dead
const LONGEST_WAIT = 8_000; // ms between two attempts to connect: 10 s after a recovery every page shows the truth
const QUIET = 5_000; // ms between two spoken messages

/** Why a start was refused: `code` is for programs, `message` a sentence for people. */
export class ProgressError extends Error {
  constructor({ code, message, request = null }) {
    super(message);
    Object.assign(this, { name: "ProgressError", code, request });
  }
}

/**
 * The jobs of this visitor, kept up to date. Connects at once, and again by itself for as long as it lives.
 *
 * Reads: `jobs` (Map of id → job, as the server last told), `backends` ([{name, progress, cancel}]), `state`, `message`.
 * Events, each with its `detail`:
 *   "job"       a job that is new or has changed (frames older than what is known are dropped)
 *   "snapshot"  {jobs, backends}: replaces all that was known, on each connect
 *   "state"     {state, message, before}: "connecting" at first, then "live", "delayed" (connected, but the server's updates are late),
 *               "offline" (reconnecting) or "refused" (a login is needed or has ended; it tries no more)
 *   "status"    {live, message}: the server's own word on delays
 *   "error"     {code, message, request}: an error that no `start()` waits for
 */
export class ProgressSocket extends EventTarget {
  jobs = new Map();
  backends = [];
  state = "connecting";
  message = "";
  #url;
  #socket = null;
  #ready = false; // the snapshot has come
  #heard = 0;
  #attempts = 0;
  #retry;
  #refusal = null;
  #starts = new Map(); // request → {text, promise, resolve, reject}
  #cancels = new Set();
  #life = new AbortController();
  static #shared = new Map();

  /** The one socket of this page for a URL; elements use it too. */
  static shared(url = "/prog/") {
    const { href } = new URL(url, document.baseURI);
    if (!this.#shared.has(href)) this.#shared.set(href, new this(href));
    return this.#shared.get(href);
  }

  constructor(url = "/prog/") {
    super();
    this.#url = new URL(url, document.baseURI);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    const { signal } = this.#life;
    const watch = setInterval(() => this.#watch(), 5_000);
    signal.addEventListener("abort", () => clearInterval(watch));
    addEventListener("online", () => this.#hurry(), { signal });
    document.addEventListener("visibilitychange", () => this.#hurry(), { signal });
    this.#connect();
  }

  /**
   * Start a job; resolves with its first frame, rejects with a ProgressError. While there is no connection it waits for one.
   * `request` names this start: the same one twice (here, or after a reconnect) starts one job.
   */
  start({ backend, params, request = randomId() } = {}) {
    const known = this.#starts.get(request);
    if (known) return known.promise;
    const text = JSON.stringify({ action: "start", backend, params, request });
    if (this.state === "refused") return Promise.reject(new ProgressError({ ...this.#refusal, request }));
    if (new Blob([text]).size > MAX_FRAME) {
      return Promise.reject(new ProgressError({ code: "too_large", message: "The params are too large.", request }));
    }
    const start = { text };
    start.promise = new Promise((resolve, reject) => Object.assign(start, { resolve, reject }));
    this.#starts.set(request, start);
    if (this.#ready) this.#socket.send(text);
    return start.promise;
  }

  /** Ask for a job's end (a job or its id). It is `cancelling` until the backend has obeyed, then "cancelled". */
  cancel(job) {
    const id = typeof job === "string" ? job : job.job;
    this.#cancels.add(id);
    if (this.#ready) this.#sendCancel(id);
  }

  /** Let go of the connection for good. */
  close() {
    this.#refuse({ code: "closed", message: "This page has closed its connection." });
    this.#life.abort();
  }

  #connect() {
    clearTimeout(this.#retry);
    const socket = (this.#socket = new WebSocket(this.#url));
    this.#heard = Date.now();
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heard = Date.now();
      this.#receive(JSON.parse(data));
    };
    socket.onclose = ({ code }) => socket === this.#socket && this.#lost(code);
  }

  #receive(frame) {
    if (frame.type === "snapshot") this.#snapshot(frame);
    else if (frame.type === "job") this.#job(frame);
    else if (frame.type === "status") {
      this.#setState(frame.live ? "live" : "delayed", frame.message);
      this.#emit("status", frame);
    } else if (frame.type === "error") {
      const start = this.#starts.get(frame.request);
      this.#starts.delete(frame.request);
      if (!this.#ready) this.#refusal = frame; // the reason, told before a refused login is closed
      if (start) start.reject(new ProgressError(frame));
      else this.#emit("error", frame);
    }
  }

  #snapshot({ jobs, backends }) {
    this.jobs = new Map(jobs.map((job) => [job.job, job]));
    this.backends = backends;
    this.#ready = true;
    this.#attempts = 0;
    this.#refusal = null;
    this.#setState("live");
    this.#emit("snapshot", { jobs, backends });
    jobs.forEach((job) => this.#settle(job));
    for (const { text } of this.#starts.values()) this.#socket.send(text);
    for (const id of this.#cancels) this.#sendCancel(id);
  }

  #job(job) {
    this.#settle(job);
    if (job.version <= (this.jobs.get(job.job)?.version ?? 0)) return;
    this.jobs.set(job.job, job);
    this.#emit("job", job);
  }

  /** What a job's frame answers: the start that asked for it, the cancel that was obeyed. */
  #settle(job) {
    this.#starts.get(job.request)?.resolve(job);
    this.#starts.delete(job.request);
    if (job.cancelling || job.complete) this.#cancels.delete(job.job);
  }

  #sendCancel(job) {
    if (this.jobs.has(job)) this.#socket.send(JSON.stringify({ action: "cancel", job }));
    else this.#cancels.delete(job);
  }

  #lost(code) {
    this.#socket = null;
    this.#ready = false;
    if (code >= 4400 && code < 4500) {
      const ended = { code: "session_ended", message: "You have signed out." };
      this.#refuse(this.#refusal ?? ended);
      return;
    }
    const ceiling = Math.min(LONGEST_WAIT, 500 * 2 ** this.#attempts++);
    this.#retry = setTimeout(() => this.#connect(), ceiling * (0.5 + Math.random() / 2));
    this.#setState("offline", "The connection is lost. Your jobs run on, and this page catches up by itself.");
  }

  /** The end: nothing of this visitor stays here, and whoever waits for a start is told why it will not come. */
  #refuse(refusal) {
    this.#refusal = refusal;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = null;
    this.#ready = false;
    socket?.close();
    for (const [request, start] of this.#starts) start.reject(new ProgressError({ ...refusal, request }));
    this.#starts.clear();
    this.jobs = new Map();
    this.#setState("refused", refusal.message);
    this.#emit("snapshot", { jobs: [], backends: this.backends });
  }

  #watch() {
    if (!this.#socket || Date.now() - this.#heard < SILENCE) return;
    const silent = this.#socket;
    this.#lost(1006);
    silent.close();
  }

  /** The network or the reader is back: do not sit out the rest of a long wait. */
  #hurry() {
    if (this.state === "offline" && !this.#socket && !document.hidden) this.#connect();
  }

  #setState(state, message = "") {
    if (state === this.state && message === this.message) return;
    const before = this.state;
    Object.assign(this, { state, message });
    this.#emit("state", { state, message, before });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Unguessable, and there on plain http too, where crypto.randomUUID is not. */
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const waiting = new Map();
let spoken = -Infinity;
let speaking;

/** Have a screen reader say `text` politely: one region a page, one message in 5 s; of each `key` only the newest. */
export function announce(key, text) {
  waiting.set(key, text);
  speaking ??= setTimeout(speak, Math.max(0, spoken + QUIET - performance.now()));
}

/** Say how the connection is, for the `detail` of a "state" event; that the first one works is no news. */
export function announceConnection({ state, message, before }) {
  if (state !== "live") announce("connection", message);
  else if (before !== "connecting") announce("connection", "Connected");
}

function speak() {
  const texts = [...waiting.values()];
  const more = texts.splice(4).length;
  waiting.clear();
  speaking = undefined;
  spoken = performance.now();
  region().textContent = texts.join(". ") + (more ? `. And ${more} more` : "");
}

function region() {
  const found = document.querySelector("[data-progrock-status]");
  if (found) return found;
  const made = document.createElement("div");
  made.setAttribute("role", "status");
  made.dataset.progrockStatus = "";
  Object.assign(made.style, { position: "absolute", width: "1px", height: "1px", overflow: "hidden", clipPath: "inset(50%)" });
  return document.body.appendChild(made);
}

const wordOf = ({ cancelling, state }) => (cancelling ? "cancelling" : state);

/** "12 s", "3 min 5 s", "2 h 10 min" */
function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  return s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** The children of a <job-progress> in their order, by `data-part`; what is empty is hidden. */
const PARTS = {
  name: "span",
  state: "span",
  cancel: "button",
  progress: "progress",
  percent: "span",
  message: "p",
  error: "p",
  result: "details",
  connection: "p",
  time: "time",
};

/**
 * <job-progress job="<id>" [label="Invoice export"] [src="/prog/"] [href="/jobs/<id>"]>: one job, live.
 *
 * It lives in the light DOM, so that the page's CSS reaches it (progrock.css is a start) and a strict CSP holds. Children that
 * the server rendered (the template tag does) are taken over; updates change them in place. `state` is an attribute of the
 * element as well. `href`: the job as JSON, for one too old to be in the snapshot; `src`: the socket.
 * It emits "job" at each change (bubbling; `detail` is the job).
 */
export class JobProgress extends HTMLElement {
  static observedAttributes = ["job", "label"];
  #job = null;
  #parts = {};
  #life = null;
  #socket = null;

  connectedCallback() {
    for (const [name, tag] of Object.entries(PARTS)) {
      const found = this.querySelector(`:scope > [data-part="${name}"]`);
      this.#parts[name] = found ?? this.appendChild(document.createElement(tag));
      this.#parts[name].dataset.part = name;
      if (!found) this.#parts[name].hidden = true;
    }
    this.#parts.cancel.type = "button";
    this.#parts.percent.setAttribute("aria-hidden", "true"); // the bar says it already
    this.setAttribute("role", "group");
    this.tabIndex = -1;
    const { signal } = (this.#life = new AbortController());
    const socket = (this.#socket = ProgressSocket.shared(this.getAttribute("src") ?? undefined));
    socket.addEventListener("job", ({ detail }) => detail.job === this.#id && this.#update(detail, true), { signal });
    socket.addEventListener("snapshot", () => this.#lookUp(), { signal });
    socket.addEventListener("state", ({ detail }) => this.#connection(detail), { signal });
    this.#parts.cancel.addEventListener("click", () => this.#cancel(), { signal });
    this.#lookUp();
  }

  disconnectedCallback() {
    this.#life.abort();
    this.#job = this.#socket = null;
  }

  attributeChangedCallback(name) {
    if (name === "job") this.#job = null;
    if (this.#socket) this.#lookUp();
  }

  get #id() {
    return this.getAttribute("job") ?? "";
  }

  /** What the job is called, on the page and aloud: "render 3f2a". */
  get label() {
    return this.getAttribute("label") || `${this.#job?.backend ?? "job"} ${this.#id.slice(0, 4)}`;
  }

  #lookUp() {
    const job = this.#socket.jobs.get(this.#id);
    if (job) this.#update(job);
    else if (["live", "delayed", "refused"].includes(this.#socket.state)) this.#fetch();
  }

  async #fetch() {
    const href = this.getAttribute("href");
    const answer = href && (await fetch(href, { headers: { Accept: "application/json" } }).catch(() => null));
    if (!this.#socket) return;
    if (answer?.ok) this.#update(await answer.json());
    else if (!href || answer?.status === 404) {
      this.setAttribute("state", "unknown");
      for (const part of Object.values(this.#parts)) part.hidden = true;
      this.#text("name", this.label);
      this.#text("state", "Not available");
      this.#text("message", "There is no such job, or it is not yours.");
    }
  }

  #update(job, isNews = false) {
    const before = this.#job;
    if (before?.version > job.version) return;
    this.#job = job;
    this.#render(job);
    if (before?.version === job.version) return;
    if (before || isNews) this.#announce(before, job);
    this.dispatchEvent(new CustomEvent("job", { detail: job, bubbles: true }));
  }

  #render(job) {
    const { label } = this;
    const { progress: bar, time } = this.#parts;
    const known = typeof job.progress === "number";
    this.setAttribute("aria-label", label);
    this.setAttribute("state", job.state);
    this.#text("name", label);
    this.#text("state", wordOf(job).replace(/^./, (letter) => letter.toUpperCase()));
    this.#cancelButton(job, label);
    bar.setAttribute("aria-label", label);
    bar.hidden = !known && job.complete;
    bar.max = 100;
    if (known) bar.value = job.progress;
    else bar.removeAttribute("value");
    this.#text("percent", known ? `${Math.floor(job.progress)} %` : "");
    this.#text("message", job.message);
    this.#text("error", job.error ?? "");
    this.#result(job);
    this.#connection();
    const created = new Date(job.created);
    const clock = created.toLocaleTimeString([], { timeStyle: "short" });
    this.#text("time", job.ended ? `${clock} · took ${duration(new Date(job.ended) - created)}` : `started ${clock}`);
    time.dateTime = job.created;
    time.title = created.toLocaleString();
  }

  #cancelButton(job, label) {
    const button = this.#parts.cancel;
    const focused = button === document.activeElement;
    const able = this.#socket.backends.find(({ name }) => name === job.backend)?.cancel ?? true;
    this.#text("cancel", job.cancelling ? "Cancelling…" : "Cancel");
    button.setAttribute("aria-label", `${job.cancelling ? "Cancelling" : "Cancel"} ${label}`);
    button.setAttribute("aria-disabled", job.cancelling); // not `disabled`: that would drop the focus
    button.hidden = job.complete || !able;
    if (focused && button.hidden) this.focus({ preventScroll: true }); // the reader stays at this job
  }

  #result({ result, result_url: url }) {
    const details = this.#parts.result;
    details.hidden = !url && (result === undefined || result === null);
    if (details.hidden) return;
    const text = url ? "Open the whole result" : typeof result === "string" ? result : JSON.stringify(result, null, 2);
    if (!details.firstChild) {
      details.append(document.createElement("summary"), document.createElement(url ? "a" : "pre"));
      details.firstChild.textContent = "Result";
      details.open = text.length < 300;
    }
    if (url) details.lastChild.href = url;
    if (details.lastChild.textContent !== text) details.lastChild.textContent = text;
  }

  #connection(news) {
    const { state, message } = this.#socket;
    const fine = state === "live" || state === "connecting";
    this.#text("connection", fine || !this.#job || this.#job.complete ? "" : message);
    if (news) announceConnection(news);
  }

  #cancel() {
    if (this.#job && !this.#job.complete && !this.#job.cancelling) this.#socket.cancel(this.#job);
  }

  #announce(before, job) {
    const quarter = ({ progress }) => Math.floor((progress ?? 0) / 25);
    if (job.state !== before?.state || job.cancelling !== before.cancelling) {
      announce(job.job, `${this.label} ${wordOf(job)}${job.error ? `: ${job.error}` : ""}`);
    } else if (quarter(job) > quarter(before)) {
      announce(job.job, `${this.label} ${quarter(job) * 25} %`);
    }
  }

  /** Set a part's text where it differs, for a reader may have selected it; hide the part where there is none. */
  #text(name, text) {
    const part = this.#parts[name];
    if (part.textContent !== text) part.textContent = text;
    part.hidden = !text;
  }
}

if (!customElements.get("job-progress")) customElements.define("job-progress", JobProgress);
