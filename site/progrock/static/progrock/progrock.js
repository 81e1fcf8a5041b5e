/**
 * ProgRock in a browser: a socket that starts, cancels and watches jobs, and an element that shows
 * a job. This is one file without dependencies and without a build step.
 *
 * In a module script:
 *
 *     import { ProgressSocket } from "/static/progrock/progrock.js";
 *     const socket = ProgressSocket.shared();
 *     socket.addEventListener("job", ({ detail }) => console.log(detail.job, detail.progress));
 *     const job = await socket.start({ backend: "render", params: { seconds: 10 } });
 *     socket.cancel(job);
 *
 * In HTML, where this file is loaded by <script type="module" src="/static/progrock/progrock.js">:
 *
 *     <job-progress job="5b0c…"></job-progress>
 *
 * A `job` is a frame of the server: {job, request, backend, label, version, state, progress,
 * complete, message, cancelling, created, ended, result | result_url | error}, where `job` is its
 * id. Every string in it is text, never HTML. docs/javascript.md and docs/wire.md say more.
 */

const SOCKET = "/prog/"; // where the socket is, unless the page says another address
const HANDSHAKE = 20_000; // ms for a connection to be made
// ms from the opening to the first frame. If it takes longer, a proxy holds the frames back.
const FIRST_FRAME = 5_000;
const UNANSWERED = 15_000; // ms after which a start that has no answer is sent again
const ANSWERED = 15_000; // ms in which an HTTP request is answered
const WAIT = 20; // seconds that a waiting GET may wait at the server
const PAUSE = 1_000; // ms between two waiting GETs
const PLAIN_PAUSE = 3_000; // ms where the server does not wait
const CLIMB = 15_000; // ms until a better way is tried; this doubles after each failure
const RARELY = 600_000; // ms: the most to which CLIMB doubles
const MAX_FRAME = 65_536; // bytes: the server reads no longer frame
const SILENCE = 40_000; // ms without a frame, two beats long, after which a connection is dead
const ANSWER = 5_000; // ms in which the server answers a ping on a connection that lives
const ASK_AGAIN = 2_000; // ms before a start whose outcome is unknown is sent again
const MAX_REQUEST = 100; // characters of a request's id
const LONGEST_WAIT = 8_000; // ms between two attempts: a page must be right 10 s after a recovery
const QUIET = 5_000; // ms between two spoken messages

const HALF = /\p{Surrogate}/u; // half a character
const UNKNOWN_OUTCOME = "outcome_unknown"; // the start may or may not have happened
const LOGIN_REQUIRED = 4401; // close codes of the wire
const SESSION_ENDED = 4402;
const BROKEN = 1006;
const STRANGER = ["login_required", "no_audience"]; // codes for visitors who may see no job
const HTTP_CODE = /^http_/; // the codes of answers that are not ours
// Codes that answer a cancel. An error with any other code is about a start. If it names no request,
// the server could not read that start.
const OF_CANCELS = ["unknown_job", "unavailable", UNKNOWN_OUTCOME];

/**
 * Every sentence that people see or hear. A value is a text with {holes}; or an object of such
 * texts by plural category ({one, other, few, …} as of Intl.PluralRules), chosen by the hole
 * {count}; or a function of the holes' values that returns the text.
 */
const TEXTS = {
  connected: "Connected",
  connection_lost: "The connection is lost. Your jobs run on, and this page catches up by itself.",
  slower: "Updates come by a slower way, because no WebSocket gets through.",
  session_ended: "You have signed out.",
  closed: "This page has closed its connection.",
  aborted: "This page no longer waits for the job.",
  outcome_unknown: "The server did not answer, so this may yet be done.",
  http_error: "The server refused this with the status {status}.",

  bad_request: "The request must be a string of 1 to {most} printable characters.",
  params_no_json: "The params are not JSON: {error}.",
  params_half_character: "The params hold half of a character, which slice() leaves when it cuts an emoji.",
  params_too_large: "The params are too large.",

  name: "{backend} {id}",
  name_unknown: "job {id}",
  state_queued: "Queued",
  state_starting: "Starting",
  state_running: "Running",
  state_cancelling: "Cancelling",
  state_succeeded: "Succeeded",
  state_failed: "Failed",
  state_cancelled: "Cancelled",
  state_expired: "Expired",
  state_unknown: "Not available",
  unknown_job: "There is no such job, or it is not yours.",
  percent: "{percent} %",
  cancel: "Cancel",
  cancel_job: "Cancel {name}",
  cancelling: "Cancelling…",
  cancelling_job: "Cancelling {name}",
  result: "Result",
  whole_result: "Open the whole result",
  seconds: "{s} s",
  minutes: "{min} min {s} s",
  hours: "{h} h {min} min",
  time_active: "started {clock}",
  time_ended: "{clock} · took {duration}",

  said_queued: "{name} queued",
  said_starting: "{name} starting",
  said_running: "{name} running",
  said_cancelling: "{name} cancelling",
  said_succeeded: "{name} succeeded",
  said_failed: "{name} failed",
  said_cancelled: "{name} cancelled",
  said_expired: "{name} expired",
  said_error: "{said}: {error}",
  said_percent: "{name} {percent} %",
  said_more: "{said}. And {count} more",

  // What the server says with these codes, in the page's language.
  told_rabbitmq:
    "Updates are delayed: RabbitMQ is away. Your jobs run on, and this page catches up by itself.",
  told_ledger: "Updates are delayed: the database is away. This page catches up by itself.",
  told_work:
    "Updates are delayed: the workers have more to do than they can at the moment. This page catches up by itself.",
  told_login_required: "Sign in to run jobs and to see yours.",
  told_no_audience: "You are signed in, but your account may see no jobs here.",
  told_too_many_sockets: "Too many pages of yours are open; close some.",
  told_busy: "Too many visitors come at once; try again in a moment.",
  told_unavailable: "The database is away; try again in a moment.",
};

/**
 * What the page's template tells, as JSON in <script type="application/json" id="progrock-page">:
 * `socket` (its address), `http` (the address under which `events` and `jobs` are), `csrf`
 * ({cookie, header} by name, and perhaps `token`) and `texts`.
 */
const told = JSON.parse(
  globalThis.document?.getElementById("progrock-page")?.textContent || "{}",
);

let renaming; // the timer of an event that tells of new texts

/**
 * The texts of this page: change some or all with Object.assign, at any time. The document then
 * gets the event "progrock-texts", at which elements show the new ones.
 */
const texts = new Proxy({ ...TEXTS, ...told.texts }, {
  set(all, key, value) {
    all[key] = value;
    renaming ??= setTimeout(() => {
      renaming = undefined;
      globalThis.document?.dispatchEvent(new Event("progrock-texts")); // a server has none
    });
    return true;
  },
});

/** The text of this key with its holes filled. */
function sentence(key, values = {}) {
  const found = texts[key] ?? TEXTS[key] ?? key;
  if (typeof found === "function") return String(found(values));
  const chosen = typeof found === "string" ? found : (found[plural(values.count)] ?? found.other);
  return String(chosen).replace(/\{(\w+)\}/g, (hole, name) => values[name] ?? hole);
}

/** A frame of the server in the page's language, where it has one of the usual sentences. */
function inOwnWords(frame) {
  const key = `told_${frame.code}`;
  return frame.message && frame.message === TEXTS[key]
    ? { ...frame, message: sentence(key) }
    : frame;
}

/** The plural category of a number in the page's language, such as "one" or "other". */
function plural(count) {
  try {
    return new Intl.PluralRules(document.documentElement.lang || undefined).select(count);
  } catch {
    return "other"; // the page's `lang` is no language
  }
}

/** Why a start was refused: `code` is for programs, `message` a sentence for people. */
class ProgressError extends Error {
  constructor({ code, message, request = null }) {
    super(message);
    Object.assign(this, { name: "ProgressError", code, request });
  }
}

/**
 * One connection to the server, over one of the ways below. It opens by itself, and then calls
 * `onframe(frame)` for each frame of the server. The first frame is the snapshot, or an error that
 * says why there is none. When the connection is lost, it calls `onlost(code)` once, with a close
 * code of the wire. `send(message)` sends a start, a cancel or a ping. `close()` ends the
 * connection and calls nothing.
 */
class Way {
  spoke = false; // it has given a frame
  #onframe;
  #onlost;
  #hoarded; // the timer that gives up waiting for the first frame

  constructor({ onframe, onlost }) {
    this.#onframe = onframe;
    this.#onlost = onlost;
  }

  /** The connection is made, so the first frame must come soon. */
  opened() {
    this.#hoarded = setTimeout(() => this.lost(BROKEN), FIRST_FRAME);
  }

  /** Pass a frame on. One that came `aside`, by another request, does not prove that this lives. */
  heard(frame, aside = false) {
    if (!aside) clearTimeout(this.#hoarded);
    this.spoke = true;
    this.#onframe?.(frame, aside);
  }

  lost(code) {
    const tell = this.#onlost;
    this.close();
    tell?.(code);
  }

  close() {
    clearTimeout(this.#hoarded);
    this.#onframe = this.#onlost = null;
  }
}

/** The WebSocket. */
class SocketWay extends Way {
  #socket;

  constructor(options) {
    super(options);
    const socket = (this.#socket = new WebSocket(options.socket));
    socket.onopen = () => this.opened();
    socket.onmessage = ({ data }) => this.heard(JSON.parse(data));
    socket.onclose = ({ code }) => this.lost(code);
  }

  send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  close() {
    super.close();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }
}

/** What the two ways over plain HTTP share: requests, and the starts and cancels among them. */
class HttpWay extends Way {
  life = new AbortController();
  #options;

  constructor(options) {
    super(options);
    this.#options = options;
    queueMicrotask(() => this.run().catch(() => this.lost(BROKEN)));
  }

  /** Send a start or a cancel. Its answer is a frame, as it would be on a socket. */
  async send({ action, job, ...body }) {
    if (action === "ping") return this.ping();
    let answer = null;
    let frame;
    try {
      const path = job ? `jobs/${encodeURIComponent(job)}` : "jobs";
      if (action === "cancel") answer = await this.#change("DELETE", path);
      else answer = await this.#change("POST", action === "again" ? `${path}/again` : path, body);
      if (isJson(answer)) frame = await answer.json();
    } catch {
      // There was no whole answer.
    }
    this.heard(frame ?? (await problem(answer, body.request)), true);
  }

  /** A request that changes something, with Django's CSRF token. */
  async #change(method, path, body) {
    // A visitor who has no token yet gets its cookie with any answer of the API.
    if (!this.#options.csrf().token) await this.get("backends");
    const { header, token } = this.#options.csrf();
    const headers = { "Content-Type": "application/json", [header]: token };
    return this.get(path, { method, headers, body: body && JSON.stringify(body) });
  }

  /** A request under `progrock.urls`. */
  get(path, { signals = [], ...options } = {}) {
    return ask(new URL(path, this.#options.http), { ...options, signals: [this.life, ...signals] });
  }

  /** Tell why there is no answer of the kind that was asked for, and end. */
  async refused(answer) {
    const frame = await problem(answer);
    const code = STRANGER.includes(frame.code) ? LOGIN_REQUIRED : BROKEN;
    // An answer that is not ours, or that says that the server lacks this way, is like a lost
    // connection.
    const { code: why } = frame;
    const ours = ![UNKNOWN_OUTCOME, "needs_asgi"].includes(why) && !HTTP_CODE.test(why);
    if (ours && !this.spoke) this.heard(frame);
    this.lost(code);
  }

  close() {
    super.close();
    this.life.abort();
  }
}

/** Server-sent events: one long answer with the frames of the WebSocket. */
class EventsWay extends HttpWay {
  #reader = null;

  async run() {
    const headers = { Accept: "text/event-stream" };
    const answer = await this.get("events", { headers, timeout: HANDSHAKE });
    if (!isOf(answer, "text/event-stream")) return this.refused(answer);
    this.opened();
    const reader = (this.#reader = answer.body.getReader());
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (reader !== this.#reader) return;
      if (done) return this.lost(BROKEN);
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data:")) this.heard(JSON.parse(line.slice(5)));
    }
  }

  heard(frame, aside) {
    if (frame.code === "session_ended" && !aside) this.lost(SESSION_ENDED);
    else super.heard(frame, aside);
  }

  /** Nothing can be asked over a stream. A new one in its place begins with a snapshot. */
  ping() {
    this.#end();
    this.run().catch(() => this.lost(BROKEN));
  }

  #end() {
    this.#reader?.cancel().catch(() => {}); // it may have broken before
    this.#reader = null;
  }

  close() {
    super.close();
    this.#end();
  }
}

/** GET requests of which each waits at the server for the next change. */
class WaitingWay extends HttpWay {
  #jobs = new Map(); // id → version, as told
  #backends;
  #etag = null;
  #wait = null;
  #hurries = false; // the next answer must come at once
  #rouse; // ends the pause

  async run() {
    const answer = await this.get("backends"); // first, because it brings a new visitor's cookies
    if (!isJson(answer)) return this.refused(answer);
    this.#backends = (await answer.json()).backends;
    while (!this.life.signal.aborted) {
      const answer = await this.#list();
      if (answer.status === 304) this.heard({ type: "beat" });
      else if (!isJson(answer)) return this.refused(answer);
      else this.#tell((await answer.json()).jobs, answer.headers.get("ETag"));
      const waits = answer.headers.has("Preference-Applied") || answer.status !== 304;
      await new Promise((done) => {
        this.#rouse = done;
        setTimeout(done, waits ? PAUSE : PLAIN_PAUSE);
      });
    }
  }

  /** Ask for the latest jobs. The server may answer only when something has changed. */
  async #list() {
    const path = "jobs?limit=200";
    if (!this.#etag) return this.get(path);
    const known = { "If-None-Match": this.#etag };
    const wait = (this.#wait = new AbortController());
    if (this.#hurries) wait.abort();
    this.#hurries = false;
    try {
      const headers = { ...known, Prefer: `wait=${WAIT}` };
      return await this.get(path, { headers, signals: [wait], timeout: ANSWERED + WAIT * 1_000 });
    } catch (error) {
      if (!wait.signal.aborted) throw error;
      this.#hurries = false;
      return this.get(path, { headers: known });
    }
  }

  /** Pass on, as frames, what is new in this list of the latest jobs. It begins with the newest. */
  #tell(jobs, etag) {
    const before = this.#jobs;
    const rewound = jobs.some(({ job, version }) => version < before.get(job));
    const whole = !this.#etag || rewound;
    this.#jobs = new Map(jobs.map(({ job, version }) => [job, version]));
    this.#etag = etag;
    if (whole) return this.heard({ type: "snapshot", jobs, backends: this.#backends });
    const news = jobs.filter(({ job, version }) => version !== before.get(job));
    for (const job of news.reverse()) this.heard(job);
    if (!news.length) this.heard({ type: "beat" });
  }

  /** End the waiting or the pause, so that the next answer comes at once. */
  ping() {
    this.#hurries = true;
    this.#wait?.abort();
    this.#rouse?.();
  }
}

/** The ways by their names, the best first. */
const WAYS = { websocket: SocketWay, events: EventsWay, waiting: WaitingWay };

/** Fetch. Rejects when no answer begins within `timeout` ms, or when one of `signals` aborts. */
async function ask(url, { headers, signals = [], timeout = ANSWERED, ...options }) {
  const end = new AbortController();
  const abort = () => end.abort();
  const timer = setTimeout(abort, timeout);
  if (signals.some(({ signal }) => signal.aborted)) abort();
  for (const { signal } of signals) signal.addEventListener("abort", abort);
  try {
    const accept = { Accept: "application/json", ...headers };
    return await fetch(url, { ...options, headers: accept, signal: end.signal });
  } finally {
    clearTimeout(timer);
    for (const { signal } of signals) signal.removeEventListener("abort", abort);
  }
}

const isOf = (answer, type) =>
  answer.ok && (answer.headers.get("Content-Type") ?? "").startsWith(type);
const isJson = (answer) => isOf(answer, "application/json");

/** The error frame of an answer that is no success; of null, where there was no answer. */
async function problem(answer, request = null) {
  const frame = { type: "error", request, code: UNKNOWN_OUTCOME };
  const body = answer && (await answer.json().catch(() => null));
  if (body?.code) return { ...frame, code: body.code, message: body.detail };
  if (!answer || answer.ok || answer.status >= 500) {
    return { ...frame, message: sentence("outcome_unknown") };
  }
  const message = sentence("http_error", { status: answer.status });
  return { ...frame, code: `http_${answer.status}`, message };
}

/**
 * The jobs of this visitor, kept up to date. It connects at once, and reconnects by itself.
 *
 * It comes by a WebSocket, else by server-sent events, else by GET requests that wait at the
 * server. A way is blocked when it fails although plain HTTP is answered. Then the next one is
 * taken, and a better one is tried again from time to time.
 *
 * To read: `jobs` (a Map from id to job, as the server last told), `backends` ([{name, progress,
 * cancel}]), `state` and `message` (how the connection is, and a sentence about it), `code` (the
 * code of what was refused; "" otherwise), `transport` ("websocket", "events" or "waiting", null
 * before the first snapshot). To write: `csrf`, Django's CSRF token, for pages where the client
 * cannot find it.
 *
 * `state` is "connecting" at first, and then one of: "live"; "delayed" (connected, but the server's
 * updates are late); "offline" (it reconnects); "refused" (the visitor must sign in or has signed
 * out, so it does not reconnect before `reconnect()` is called).
 *
 * Events, each with its data in `detail`:
 *   "job"       a job that is new or has changed; older versions than the known one are dropped
 *   "snapshot"  {jobs, backends}: replaces all that was known; on each connect
 *   "state"     {state, message, before}: the connection's state has changed
 *   "transport" {transport, before}: updates come by another way
 *   "status"    {live, message}: the server says whether its updates are late
 *   "error"     {code, message, request}: an error that no `start()` waits for
 *   "refused"   {code, message}: the visitor must sign in (again). Then call `reconnect()`. Or they
 *               are signed in and may see no jobs ("no_audience")
 */
class ProgressSocket extends EventTarget {
  jobs = new Map();
  backends = [];
  state = "connecting";
  message = "";
  code = "";
  transport = null;
  csrf = null;
  #addresses;
  #names; // of the ways that this page can use, the best first
  #rank = 0; // which of them is used or tried
  #failures = 0; // of this way, in a row
  #way = null; // the connection
  #frames = 0; // that it has given
  #ready = false; // the snapshot has come
  #heard = 0;
  #attempts = 0;
  #retry;
  #probe = null; // the timer of a ping that has no answer yet
  #better = null; // a connection over a better way, which has not given its snapshot
  #climb = null; // the timer that tries one, or that gives it up
  #climbs = 0;
  #refusal = null;
  #starts = new Map(); // request → {message, sent, promise, resolve, reject}, the oldest first
  #oneByOne = false; // send the next start only when the one before it has its answer
  #cancels = new Set();
  #life = new AbortController();
  static #shared = new Map();

  /** The one socket of this page for a URL. Elements use it as well. */
  static shared(url = told.socket ?? SOCKET, options = {}) {
    const { href } = new URL(url, document.baseURI);
    const found = this.#shared.get(href);
    if (!found || found.#life.signal.aborted) this.#shared.set(href, new this(href, options));
    return this.#shared.get(href);
  }

  /**
   * `url` is the socket's address. `http` is the address under which `progrock.urls` has `events`
   * and `jobs`; without it only the WebSocket is used. A page made by our templates tells both.
   */
  constructor(url = told.socket ?? SOCKET, { http } = {}) {
    super();
    const socket = new URL(url, document.baseURI);
    const usual = new URL(told.socket ?? SOCKET, document.baseURI);
    const base = (http ?? (socket.href === usual.href ? told.http : null))?.replace(/\/?$/, "/");
    socket.protocol = socket.protocol.replace("http", "ws");
    this.#addresses = { socket, http: base && new URL(base, document.baseURI) };
    this.#names = base ? Object.keys(WAYS) : ["websocket"];
    this.#rank = Math.max(0, this.#names.indexOf(remembered()));
    const { signal } = this.#life;
    const watch = setInterval(() => this.#watch(), 2_000);
    signal.addEventListener("abort", () => clearInterval(watch));
    addEventListener("online", (event) => this.#wake(event), { signal });
    addEventListener("pageshow", (event) => this.#wake(event), { signal });
    document.addEventListener("visibilitychange", (event) => this.#wake(event), { signal });
    this.#connect();
  }

  /**
   * Start a job. Resolves with its first frame, or rejects with a ProgressError. While there is no
   * connection it waits for one. `request` is an id for this start: the same one twice starts one
   * job. `signal` is an AbortSignal that ends the waiting, as of AbortSignal.timeout(10_000); a job
   * that was asked for already may start all the same.
   */
  start({ backend, params, request = randomId(), signal } = {}) {
    return this.#begin({ action: "start", backend, params, request }, signal);
  }

  /** Start a new job like this one (or like the job with this id). The rest is as of `start`. */
  again(job, { request = randomId(), signal } = {}) {
    return this.#begin({ action: "again", job: idOf(job), request }, signal);
  }

  /** Cancel a job (or the job with this id). It is `cancelling` until the backend has obeyed. */
  cancel(job) {
    const id = idOf(job);
    this.#cancels.add(id);
    if (this.#ready) this.#sendCancel(id);
  }

  /**
   * Connect anew, with the cookies of now. Call it when the visitor has signed in, or signed in as
   * somebody else, without a page load. Does nothing after `close()`.
   */
  reconnect() {
    if (this.#life.signal.aborted) return;
    this.#attempts = this.#rank = this.#failures = 0;
    this.#connect();
    this.#setState("connecting");
  }

  /** Close the connection for good. */
  close() {
    this.#life.abort();
    this.#refuse({ code: "closed", message: sentence("closed") });
  }

  /** Send a message whose answer is the first frame of a job. */
  #begin(message, signal) {
    const { request } = message;
    const known = this.#starts.get(request);
    if (known) return known.promise;
    const start = { message, sent: 0 };
    try {
      if (this.state === "refused") throw new ProgressError({ ...this.#refusal, request });
      if (signal?.aborted) throw aborted(request);
      checkStart(message);
    } catch (error) {
      return Promise.reject(error);
    }
    start.promise = new Promise((resolve, reject) => Object.assign(start, { resolve, reject }));
    this.#starts.set(request, start);
    const abort = () => this.#starts.get(request) === start && this.#reject(aborted(request));
    signal?.addEventListener("abort", abort, { once: true });
    if (this.#ready && (!this.#oneByOne || this.#starts.size === 1)) this.#sendStart(start);
    return start.promise;
  }

  /** Open a connection. If there is one already, drop it. */
  #connect() {
    this.#drop();
    this.#heard = Date.now();
    this.#frames = 0;
    this.#refusal = null;
    this.code = "";
    this.#way = this.#open(this.#rank);
  }

  /** A new connection over the way of this rank. */
  #open(rank) {
    const way = new WAYS[this.#names[rank]]({
      ...this.#addresses,
      csrf: () => csrfOf(this.csrf),
      onframe: (frame, aside) => this.#frame(way, rank, frame, aside),
      onlost: (code) => (way === this.#way ? this.#lost(code) : this.#climbLater()),
    });
    return way;
  }

  /** Let go of the connection, and of what waits for it. */
  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#climb);
    this.#answered();
    this.#way?.close();
    this.#better?.close();
    this.#way = this.#better = this.#climb = null;
    this.#ready = false;
  }

  #frame(way, rank, frame, aside) {
    if (way === this.#better && frame.type === "snapshot") {
      this.#better = null;
      this.#drop();
      this.#way = way;
      this.#rank = rank;
      this.#frames = 0;
    }
    if (way !== this.#way) return;
    if (!aside) {
      this.#heard = Date.now();
      this.#frames += 1;
      if (this.#frames > 1 && this.#rank === 0) this.#climbs = 0; // the best way is proven
      this.#answered();
    }
    this.#receive(frame);
  }

  #receive(received) {
    const frame = inOwnWords(received);
    if (frame.type === "snapshot") this.#snapshot(frame);
    else if (frame.type === "job") this.#job(frame);
    else if (frame.type === "status") {
      this.#setState(frame.live ? "live" : "delayed", frame.live ? this.#notice() : frame.message);
      this.#emit("status", frame);
    } else if (frame.type === "error") this.#error(frame);
  }

  #error(frame) {
    if (!this.#ready) {
      this.#refusal = frame; // the server says why before it closes the socket
      this.#emit("error", frame);
    } else if (this.#starts.has(frame.request)) {
      if (frame.code === UNKNOWN_OUTCOME) this.#askAgain(frame.request);
      else this.#reject(new ProgressError(frame));
    } else if (frame.code === "unknown_action" && !frame.request) {
      // A server that does not know our ping has answered it all the same.
    } else if (!frame.request && !OF_CANCELS.includes(frame.code) && this.#starts.size) {
      this.#unread(frame);
    } else this.#emit("error", frame);
  }

  /**
   * The server could not read a start and so does not say which one. When only one waits, it is
   * that one. Of several, send each by itself, on a new connection, because on this one more such
   * errors may be under way. The same request twice starts one job.
   */
  #unread(frame) {
    if (this.#oneByOne || this.#starts.size === 1) {
      const [request] = this.#starts.keys();
      this.#reject(new ProgressError({ ...frame, request }));
    } else {
      this.#oneByOne = true;
      this.#connect();
    }
  }

  /** A start may or may not have happened. Send it again: the same request starts no second job. */
  #askAgain(request) {
    const way = this.#way;
    setTimeout(() => {
      const start = this.#starts.get(request);
      if (start && this.#ready && way === this.#way) this.#sendStart(start);
    }, ASK_AGAIN);
  }

  #reject(error) {
    this.#starts.get(error.request).reject(error);
    this.#forget(error.request);
  }

  #forget(request) {
    if (!this.#starts.delete(request) || !this.#oneByOne) return;
    if (this.#starts.size === 0) this.#oneByOne = false;
    else if (this.#ready) this.#sendStarts();
  }

  #sendStarts() {
    for (const start of this.#starts.values()) {
      this.#sendStart(start);
      if (this.#oneByOne) break;
    }
  }

  #sendStart(start) {
    start.sent = Date.now();
    this.#way.send(start.message);
  }

  #snapshot({ jobs, backends }) {
    this.jobs = new Map(jobs.map((job) => [job.job, job]));
    this.backends = backends;
    this.#ready = true;
    this.#attempts = this.#failures = 0;
    this.#refusal = null;
    this.#tellTransport();
    this.#setState("live", this.#notice());
    this.#emit("snapshot", { jobs, backends });
    jobs.forEach((job) => this.#settle(job));
    this.#sendStarts();
    for (const id of this.#cancels) this.#sendCancel(id);
  }

  #job(job) {
    this.#settle(job);
    if (job.version <= (this.jobs.get(job.job)?.version ?? 0)) return;
    this.jobs.set(job.job, job);
    this.#emit("job", job);
  }

  /** Resolve the start that this job answers, and forget its cancel once the server has it. */
  #settle(job) {
    this.#starts.get(job.request)?.resolve(job);
    this.#forget(job.request);
    if (job.cancelling || job.complete) this.#cancels.delete(job.job);
  }

  #sendCancel(job) {
    if (this.jobs.has(job)) this.#way.send({ action: "cancel", job });
    else this.#cancels.delete(job);
  }

  #lost(code) {
    const waited = Date.now() - this.#heard;
    // No frame came, or for long none after the first. Something on the way may hold them back.
    const mute = this.#frames === 0 || (this.#frames === 1 && waited >= SILENCE);
    this.#drop();
    if (code >= 4400 && code < 4500) {
      const ended = { code: "session_ended", message: sentence("session_ended") };
      this.#refuse(this.#refusal ?? ended);
      return;
    }
    const ceiling = Math.min(LONGEST_WAIT, 500 * 2 ** this.#attempts++);
    this.#retry = setTimeout(() => this.#connect(), ceiling * (0.5 + Math.random() / 2));
    this.#setState("offline", sentence("connection_lost"));
    if (mute && this.#addresses.http) this.#doubt(waited >= HANDSHAKE);
  }

  /**
   * The way is blocked if it fails although plain HTTP is answered. A WebSocket must fail twice, or
   * after a long wait. Then take the next way. After the last one comes the first.
   */
  async #doubt(waited) {
    const rank = this.#rank;
    const health = new URL("healthz", this.#addresses.http);
    const answer = await ask(health, { cache: "no-store" }).catch(() => null);
    const stale = rank !== this.#rank || this.#ready || this.state === "refused";
    if (stale || !answer || answer.status >= 500) return;
    this.#failures += 1;
    if (rank === 0 && this.#failures < 2 && !waited) return;
    this.#failures = 0;
    this.#rank = (rank + 1) % this.#names.length;
    if (this.#rank > 0) this.#connect();
  }

  /** Tell which way is used now, remember it for the next page, and plan to try a better one. */
  #tellTransport() {
    const before = this.transport;
    this.transport = this.#names[this.#rank];
    remember(this.transport);
    if (this.#rank > 0 && this.#climb === null) this.#climbLater();
    if (before !== this.transport) {
      this.#emit("transport", { transport: this.transport, before });
    }
  }

  #notice() {
    return this.#rank > 0 ? sentence("slower") : "";
  }

  #climbLater() {
    clearTimeout(this.#climb);
    this.#better?.close();
    this.#better = null;
    const wait = Math.min(RARELY, CLIMB * 2 ** this.#climbs++);
    this.#climb = setTimeout(() => this.#tryBetter(), wait);
  }

  /** Try a better way beside the present one, which is kept until the other gives a snapshot. */
  #tryBetter() {
    if (!this.#ready || this.#rank === 0 || this.#better) return;
    clearTimeout(this.#climb);
    this.#better = this.#open(this.#climbs % this.#rank);
    this.#climb = setTimeout(() => this.#climbLater(), HANDSHAKE);
  }

  /** Stop for good: forget this visitor's jobs, and reject the starts that still wait. */
  #refuse(refusal) {
    this.#drop();
    this.#refusal = refusal;
    for (const [request, start] of this.#starts) {
      start.reject(new ProgressError({ ...refusal, request }));
    }
    this.#starts.clear();
    this.#oneByOne = false;
    this.jobs = new Map();
    this.code = refusal.code;
    this.#setState("refused", refusal.message);
    this.#emit("snapshot", { jobs: [], backends: this.backends });
    if (refusal.code !== "closed") this.#emit("refused", refusal);
  }

  /** Give up a connection that has been silent for too long, and repeat what has no answer. */
  #watch() {
    if (!this.#way) return;
    const now = Date.now();
    if (now - this.#heard >= (this.#frames ? SILENCE : HANDSHAKE)) this.#lost(BROKEN);
    else if (this.#ready) {
      const sent = [...this.#starts.values()].filter((start) => start.sent);
      for (const start of sent) if (now - start.sent >= UNANSWERED) this.#sendStart(start);
    }
  }

  /**
   * The network, the reader or the page is back. So connect now instead of waiting, or find out
   * whether the connection still lives, because nothing tells when it dies.
   */
  #wake({ type, persisted }) {
    const loads = type === "pageshow" && !persisted && Date.now() - this.#heard < 1_000;
    if (document.hidden || loads) return;
    if (this.state === "refused") {
      if (persisted) this.reconnect(); // back from the page where the visitor signed in, perhaps
    } else if (this.#ready) {
      this.#ping();
      if (type === "online") this.#tryBetter(); // another network may block less
    } else if (!this.#way) this.#connect();
    else if (type === "online" || persisted) this.#connect(); // a handshake on the old network
  }

  #ping() {
    if (this.#probe) return;
    this.#probe = setTimeout(() => this.#lost(BROKEN), ANSWER);
    this.#way.send({ action: "ping" });
  }

  #answered() {
    clearTimeout(this.#probe);
    this.#probe = null;
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

const idOf = (job) => (typeof job === "string" ? job : job.job);

const aborted = (request) =>
  new ProgressError({ code: "aborted", message: sentence("aborted"), request });

/** Django's CSRF token, and the name of the header in which it is sent. */
function csrfOf(given) {
  const { cookie = "csrftoken", header = "X-CSRFToken", token } = told.csrf ?? {};
  const found = document.cookie.split("; ").find((each) => each.startsWith(`${cookie}=`));
  return { header, token: given ?? (found ? found.slice(cookie.length + 1) : (token ?? "")) };
}

/** The way that worked last in this tab, so that each page need not find out anew. */
function remembered() {
  try {
    return sessionStorage.getItem("progrock-transport");
  } catch {
    return null; // the reader allows no storage
  }
}

function remember(transport) {
  try {
    sessionStorage.setItem("progrock-transport", transport);
  } catch {
    // Then the next page finds out by itself.
  }
}

/** Throws a ProgressError for a start that the server could not read. */
function checkStart(message) {
  const { request } = message;
  const refuse = (code, message) => {
    throw new ProgressError({ code, message, request });
  };
  const length = typeof request === "string" ? [...request].length : 0;
  if (length < 1 || length > MAX_REQUEST || HALF.test(request)) {
    refuse("bad_request", sentence("bad_request", { most: MAX_REQUEST }));
  }
  let text;
  try {
    text = JSON.stringify(message);
  } catch (error) {
    refuse("bad_params", sentence("params_no_json", { error: error.message }));
  }
  // JSON.stringify writes half a character as \udXXX. An escaped backslash before it is text.
  if (/(?<!\\)(\\\\)*\\ud[89a-f]/.test(text)) {
    refuse("bad_params", sentence("params_half_character"));
  }
  if (new Blob([text]).size > MAX_FRAME) refuse("too_large", sentence("params_too_large"));
}

/** An id that nobody can guess. crypto.randomUUID does not exist on plain http. */
function randomId() {
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const waiting = new Map();
let spoken = -Infinity;
let speaking;

/**
 * Have a screen reader say `text`, politely: by the one status region of the page, at most one
 * message in 5 s, and of each `key` only the newest text.
 */
function announce(key, text) {
  waiting.set(key, text);
  speaking ??= setTimeout(speak, Math.max(0, spoken + QUIET - performance.now()));
}

/** Say how the connection is, by the `detail` of a "state" event. The first success is no news. */
function announceConnection({ state, message, before }) {
  if (state !== "live" || message) announce("connection", message);
  else if (before !== "connecting") announce("connection", sentence("connected"));
}

function speak() {
  const all = [...waiting.values()];
  const more = all.splice(4).length;
  const said = all.join(". ");
  waiting.clear();
  speaking = undefined;
  spoken = performance.now();
  region().textContent = more ? sentence("said_more", { said, count: more }) : said;
}

function region() {
  const found = document.querySelector("[data-progrock-status]");
  if (found) return found;
  const made = document.createElement("div");
  made.setAttribute("role", "status");
  made.dataset.progrockStatus = "";
  const hidden = { position: "absolute", overflow: "hidden", clipPath: "inset(50%)" };
  Object.assign(made.style, hidden, { width: "1px", height: "1px" });
  return document.body.appendChild(made);
}

/** How far a job is, as the keys of the texts say it: its state, or "cancelling". */
const stageOf = ({ cancelling, state }) => (cancelling ? "cancelling" : state);

/** "12 s", "3 min 5 s", "2 h 10 min" */
function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return sentence("seconds", { s });
  if (s < 3600) return sentence("minutes", { min: Math.floor(s / 60), s: s % 60 });
  return sentence("hours", { h: Math.floor(s / 3600), min: Math.floor((s % 3600) / 60) });
}

/** How results are shown: texts as they are, addresses as links, large ones as a link to them. */
function formatResult({ result, result_url: url }) {
  if (url) return link(url, sentence("whole_result"));
  if (typeof result === "string") return isAddress(result) ? link(result) : result;
  const text = JSON.stringify(result, null, 2);
  const pieces = text.split(/("https?:[^"\\\s]+")/i);
  if (pieces.length === 1) return text;
  const pre = document.createElement("pre");
  for (const piece of pieces) {
    const address = piece.slice(1, -1);
    pre.append(...(isAddress(address) ? ['"', link(address), '"'] : [piece]));
  }
  return pre;
}

/** Whether a text is an address of the web. Any other one, such as javascript:, may be code. */
const isAddress = (text) => /^https?:\/\/\S+$/i.test(text) && URL.canParse(text);

function link(href, text = href) {
  const made = document.createElement("a");
  return Object.assign(made, { href, textContent: text, rel: "noopener noreferrer" });
}

/**
 * The children of a <job-progress> in their order, by `data-part`. Empty ones are hidden. None is a
 * <p>, because the template tag may write them inside a <p>.
 */
const PARTS = {
  name: "span",
  state: "span",
  cancel: "button",
  progress: "progress",
  percent: "span",
  message: "span",
  error: "span",
  result: "details",
  connection: "span",
  time: "time",
};

// A server that renders React or Vue imports this file too, and has no elements.
const BaseElement = globalThis.HTMLElement ?? class {};

/**
 * <job-progress job="<id>" [label="Invoice export"] [src="/prog/"] [href="/jobs/<id>"]>
 * shows a job, live, and can cancel it.
 *
 * Attributes: `src` is the socket's URL. `href` is where the job is as JSON, for a job that is too
 * old to be in the snapshot. The element itself sets `state`. Each is a property as well. The
 * property `job` also takes a job's frame, which is shown until the socket knows better.
 *
 * It has no shadow DOM, so that the page's CSS applies to its children (progrock.css is a start).
 * It needs no inline style or script, so a strict CSP holds. Children that the server rendered, as
 * the template tag does, are kept and changed in place.
 *
 * It emits "job" at each change, and "job-end" once for a job that has ended, even when it had
 * ended before the element came. The events bubble, and `detail` is the job.
 */
class JobProgress extends BaseElement {
  static observedAttributes = ["job", "label", "src", "href"];
  static format = formatResult;
  #format = null;
  #job = null;
  #given = null; // the frame that the page has set as `job`
  #endTold = ""; // the id of the job whose end was told
  #parts = {};
  #life = null;
  #socket = null;

  connectedCallback() {
    for (const name of [...ATTRIBUTES, "format"]) this.#upgrade(name);
    const { signal } = (this.#life = new AbortController());
    const socket = (this.#socket = ProgressSocket.shared(this.getAttribute("src") ?? undefined));
    const changed = ({ detail }) => detail.job === this.#id && this.#update(detail, true);
    socket.addEventListener("job", changed, { signal });
    socket.addEventListener("snapshot", () => this.#lookUp(), { signal });
    socket.addEventListener("state", ({ detail }) => this.#connection(detail), { signal });
    const clicked = ({ target }) => target === this.#parts.cancel && this.#cancel();
    this.addEventListener("click", clicked, { signal });
    const children = new MutationObserver(() => this.#restore());
    children.observe(this, { childList: true });
    signal.addEventListener("abort", () => children.disconnect());
    document.addEventListener("progrock-texts", () => this.#reword(), { signal });
    this.#lookUp();
  }

  disconnectedCallback() {
    this.#life.abort();
    this.#job = this.#socket = null;
  }

  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    if (name === "job") this.#job = null;
    if (!this.#socket) return;
    if (name === "job") this.#clear();
    if (name === "label" && this.#job) this.#render(this.#job);
    else if (name !== "src") this.#lookUp();
    else {
      this.disconnectedCallback();
      this.connectedCallback();
    }
  }

  /**
   * Take over the parts that are there, as from the server, and make those that are missing. Not
   * before they are needed: React would find them when it hydrates, and complain.
   */
  #takeParts() {
    this.setAttribute("role", "group");
    this.tabIndex = -1;
    for (const [name, tag] of Object.entries(PARTS)) {
      const own = this.#parts[name];
      if (own?.parentNode === this) continue;
      const found = this.querySelector(`:scope > [data-part="${name}"]`);
      const part = (this.#parts[name] = found ?? own ?? document.createElement(tag));
      if (found) continue;
      part.dataset.part = name;
      part.hidden = true;
      this.append(part);
    }
    this.#parts.cancel.type = "button";
    this.#parts.percent.setAttribute("aria-hidden", "true"); // because the bar says it already
  }

  /** Bring back what a framework has removed, as Preact does when it hydrates. */
  #restore() {
    if (Object.values(this.#parts).every((part) => part.parentNode === this)) return;
    this.#takeParts();
    this.#reword();
  }

  /** A property that was set before this class was known would hide its setter. */
  #upgrade(name) {
    if (!Object.hasOwn(this, name)) return;
    const value = this[name];
    delete this[name];
    this[name] = value;
  }

  get #id() {
    return this.getAttribute("job") ?? "";
  }

  /** The id of the job that is shown, or "". Set it to an id, to a job's frame, or to null. */
  get job() {
    return this.#id;
  }

  set job(value) {
    const frame = typeof value === "object" ? value : null;
    if (frame && typeof frame.job !== "string") {
      const keys = Object.keys(frame).join(", ") || "nothing";
      const wanted = "`job` is a job's id, or its frame with the id as `job`";
      throw new TypeError(`${wanted}. Got ${keys}.`);
    }
    this.#given = frame;
    reflect(this, "job", frame ? frame.job : value);
    if (frame && this.#socket) this.#lookUp();
  }

  /**
   * What shows a result: a function of the job that returns a text or a Node. Set it for one
   * element, or `JobProgress.format` for all. Null is the usual one again.
   */
  get format() {
    return this.#format ?? JobProgress.format;
  }

  set format(value) {
    if (value && typeof value !== "function") {
      throw new TypeError(`\`format\` is a function of a job, or null. Got ${typeof value}.`);
    }
    this.#format = value || null; // Preact says "" for null
    if (this.#job && this.#socket) this.#render(this.#job);
  }

  /** What the job is called on the page and aloud: its label, or else such as "render 3f2a". */
  get #name() {
    const given = this.getAttribute("label") || this.#job?.label;
    const values = { backend: this.#job?.backend, id: this.#id.slice(0, 4) };
    return given || sentence(this.#job ? "name" : "name_unknown", values);
  }

  #lookUp() {
    if (!this.#id) return;
    const known = this.#socket.jobs.get(this.#id);
    if (known || this.#given?.job !== this.#id) this.#given = null;
    const job = known ?? this.#given;
    if (job) this.#update(job);
    else if (["live", "delayed", "refused"].includes(this.#socket.state)) this.#fetch();
  }

  /** Show the page's new texts. */
  #reword() {
    if (this.#job) this.#render(this.#job);
    else this.#lookUp();
  }

  async #fetch() {
    const [id, before] = [this.#id, this.#job];
    const href = this.getAttribute("href");
    const headers = { Accept: "application/json" };
    const answer = href && (await fetch(href, { headers }).catch(() => null));
    const found = answer?.ok && (await answer.json());
    if (!this.#socket || id !== this.#id) return;
    if (found) {
      const older = found.job !== id || this.#job?.version > found.version;
      if (!older) this.#update(found); // else a frame was faster
    } else if (this.#job !== before) {
      // A frame was faster.
    } else if (!href || answer?.status === 404) {
      this.#takeParts();
      this.#clear();
      this.setAttribute("state", "unknown");
      this.#text("name", this.#name);
      this.#text("state", sentence("state_unknown"));
      this.#text("message", sentence("unknown_job"));
    }
  }

  /** Show nothing, because there is no job, or another one than before. */
  #clear() {
    this.removeAttribute("state");
    this.removeAttribute("aria-label");
    for (const part of Object.values(this.#parts)) part.hidden = true;
  }

  #update(job, isNews = false) {
    const before = this.#job;
    this.#job = job;
    this.#render(job);
    if (before?.version === job.version) return;
    if (before || isNews) this.#announce(before, job);
    this.dispatchEvent(new CustomEvent("job", { detail: job, bubbles: true }));
    // Later, so that a script that inserts the element can listen first.
    if (job.complete) setTimeout(() => this.#tellEnd(job));
  }

  #tellEnd(job) {
    if (!this.isConnected || this.#endTold === job.job) return;
    this.#endTold = job.job;
    this.dispatchEvent(new CustomEvent("job-end", { detail: job, bubbles: true }));
  }

  #render(job) {
    this.#takeParts();
    const label = this.#name;
    const { progress: bar, time } = this.#parts;
    const known = typeof job.progress === "number";
    this.setAttribute("aria-label", label);
    this.setAttribute("state", job.state);
    this.#text("name", label);
    this.#text("state", sentence(`state_${stageOf(job)}`));
    this.#cancelButton(job, label);
    bar.setAttribute("aria-label", label);
    bar.hidden = !known && job.complete;
    bar.max = 100;
    if (known) bar.value = job.progress;
    else bar.removeAttribute("value");
    this.#text("percent", known ? sentence("percent", { percent: Math.floor(job.progress) }) : "");
    this.#text("message", job.message);
    this.#text("error", job.error ?? "");
    this.#result(job);
    this.#connection();
    const created = new Date(job.created);
    const clock = created.toLocaleTimeString([], { timeStyle: "short" });
    const took = job.ended && duration(new Date(job.ended) - created);
    const key = took ? "time_ended" : "time_active";
    this.#text("time", sentence(key, { clock, duration: took }));
    time.dateTime = job.created;
    time.title = created.toLocaleString();
  }

  #cancelButton(job, label) {
    const button = this.#parts.cancel;
    const focused = button === document.activeElement;
    const able = this.#socket.backends.find(({ name }) => name === job.backend)?.cancel ?? true;
    const word = job.cancelling ? "cancelling" : "cancel";
    this.#text("cancel", sentence(word));
    button.setAttribute("aria-label", sentence(`${word}_job`, { name: label }));
    button.setAttribute("aria-disabled", job.cancelling); // `disabled` would lose the focus
    button.hidden = job.complete || !able;
    if (focused && button.hidden) this.focus({ preventScroll: true }); // keep the focus at this job
  }

  /** Show the result, as `format` makes it. Equal content stays, because it may be selected. */
  #result(job) {
    const details = this.#parts.result;
    details.hidden = !job.result_url && (job.result ?? null) === null;
    if (details.hidden) return;
    const made = this.#formatted(job);
    const shown = document.createElement(typeof made === "string" ? "pre" : "div");
    shown.append(made);
    if (!details.firstChild) {
      details.append(document.createElement("summary"), document.createElement("div"));
      details.open = shown.textContent.length < 300;
    }
    details.firstChild.textContent = sentence("result");
    if (!details.lastChild.isEqualNode(shown)) details.lastChild.replaceWith(shown);
  }

  /** What the page's own function makes of a result, or the usual one where that fails. */
  #formatted(job) {
    try {
      return this.format(job) ?? "";
    } catch (error) {
      reportError(error);
      return formatResult(job);
    }
  }

  #connection(news) {
    const { message } = this.#socket;
    if (this.#job) this.#text("connection", this.#job.complete ? "" : message);
    if (news) announceConnection(news);
  }

  #cancel() {
    if (this.#job && !this.#job.complete && !this.#job.cancelling) this.#socket.cancel(this.#job);
  }

  #announce(before, job) {
    const quarter = ({ progress }) => Math.floor((progress ?? 0) / 25);
    const name = this.#name;
    if (job.state !== before?.state || job.cancelling !== before.cancelling) {
      const said = sentence(`said_${stageOf(job)}`, { name });
      announce(job.job, job.error ? sentence("said_error", { said, error: job.error }) : said);
    } else if (quarter(job) > quarter(before)) {
      announce(job.job, sentence("said_percent", { name, percent: quarter(job) * 25 }));
    }
  }

  /** Set a part's text, and hide an empty part. Equal text stays, because it may be selected. */
  #text(name, text) {
    const part = this.#parts[name];
    if (part.textContent !== text) part.textContent = text;
    part.hidden = !text;
  }
}

/** Set an attribute, or remove it where the value is null or undefined. */
function reflect(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

// Frameworks set properties where an element has them, so each attribute is also a property.
const ATTRIBUTES = [...JobProgress.observedAttributes, "state"];
for (const name of ATTRIBUTES.filter((each) => each !== "job")) {
  Object.defineProperty(JobProgress.prototype, name, {
    configurable: true,
    enumerable: true,
    get() {
      return this.getAttribute(name) ?? "";
    },
    set(value) {
      reflect(this, name, value);
    },
  });
}

// A page may load this file twice: by its own name, and by a name with a hash or in a bundle. The
// second copy exports what the first one made, so there is one socket and one element. Raise the
// number in the symbol when an older copy can no longer take the place of this one.
const own = { ProgressError, ProgressSocket, JobProgress, texts, sentence };
Object.assign(own, { announce, announceConnection });
const first = (globalThis[Symbol.for("progrock/1")] ??= own);
const elements = globalThis.customElements;
if (elements && !elements.get("job-progress")) elements.define("job-progress", first.JobProgress);

const { ProgressError: error, ProgressSocket: socket, JobProgress: element } = first;
const { announce: say, announceConnection: sayConnection } = first;
const { texts: sentences, sentence: sentenceOf } = first;
export {
  error as ProgressError,
  socket as ProgressSocket,
  element as JobProgress,
  say as announce,
  sayConnection as announceConnection,
  sentences as texts,
  sentenceOf as sentence,
};
