/** Types of progrock.js. docs/javascript.md says what each member does. */

export type JobState =
  | "queued"
  | "starting"
  | "running"
  | "succeeded"
  | "failed"
  | "cancelled"
  | "expired";

/** A job, as the server last told. Every string in it is text, never HTML. */
export interface Job {
  /** The job's id. */
  readonly job: string;
  /** The id that its start had. */
  readonly request: string | null;
  readonly backend: string;
  readonly label: string | null;
  /** Goes up by one at each visible change. */
  readonly version: number;
  readonly state: JobState;
  /** 0 to 100, or null while it is unknown. */
  readonly progress: number | null;
  readonly complete: boolean;
  readonly message: string;
  readonly cancelling: boolean;
  /** ISO 8601, in UTC. */
  readonly created: string;
  readonly ended: string | null;
  /** Any JSON. Only a job that has succeeded has it. */
  readonly result?: unknown;
  /** Where a large result is. It comes in place of `result`. */
  readonly result_url?: string | null;
  /** Why the job did not succeed. */
  readonly error?: string | null;
}

/** A service that runs jobs. */
export interface Backend {
  readonly name: string;
  readonly title: string;
  /** Whether browsers may start jobs of it. */
  readonly start: boolean;
  readonly progress: boolean;
  readonly cancel: boolean;
  readonly label: string | null;
  /** The JSON Schema of `params`. */
  readonly params: unknown;
}

export interface StartOptions {
  /** If left out, the first backend that browsers may start. */
  backend?: string | undefined;
  /** An object of up to 64 KiB as JSON. */
  params?: object | undefined;
  /** 1 to 100 characters. The same one twice starts one job. */
  request?: string | undefined;
  /** Ends the waiting. A job that was asked for already may start all the same. */
  signal?: AbortSignal | undefined;
}

export interface SocketOptions {
  /** The address under which `progrock.urls` is. Without it only the WebSocket is used. */
  http?: string | undefined;
}

export type Transport = "websocket" | "events" | "waiting";

export type ConnectionState = "connecting" | "live" | "delayed" | "offline" | "refused";

export interface StateChange {
  readonly state: ConnectionState;
  readonly message: string;
  readonly before: ConnectionState;
}

/** Why a start was refused: `code` is for programs, `message` a sentence for people. */
export class ProgressError extends Error {
  constructor(refusal: { code: string; message: string; request?: string | null });
  readonly code: string;
  readonly request: string | null;
}

export interface ProgressSocketEventMap {
  job: CustomEvent<Job>;
  snapshot: CustomEvent<{ readonly jobs: readonly Job[]; readonly backends: readonly Backend[] }>;
  state: CustomEvent<StateChange>;
  transport: CustomEvent<{ readonly transport: Transport; readonly before: Transport | null }>;
  status: CustomEvent<{ readonly live: boolean; readonly message: string }>;
  error: CustomEvent<{
    readonly code: string;
    readonly message: string;
    readonly request: string | null;
  }>;
  refused: CustomEvent<{ readonly code: string; readonly message: string }>;
}

/** The jobs of this visitor, kept up to date. It connects at once, and reconnects by itself. */
export class ProgressSocket extends EventTarget {
  /** The one socket of this page for a URL. Elements use it as well. */
  static shared(url?: string | URL, options?: SocketOptions): ProgressSocket;
  constructor(url?: string | URL, options?: SocketOptions);
  readonly jobs: ReadonlyMap<string, Job>;
  readonly backends: readonly Backend[];
  readonly state: ConnectionState;
  readonly message: string;
  /** The code of what was refused; "" otherwise. */
  readonly code: string;
  /** How updates come; null before the first snapshot. */
  readonly transport: Transport | null;
  /** Django's CSRF token, for pages where the client cannot find it. */
  csrf: string | null;
  /** Start a job. Rejects with a ProgressError. */
  start(options?: StartOptions): Promise<Job>;
  /** Start a new job with the backend and the params of this one. Rejects with a ProgressError. */
  again(
    job: string | Pick<Job, "job">,
    options?: Pick<StartOptions, "request" | "signal">,
  ): Promise<Job>;
  cancel(job: string | Pick<Job, "job">): void;
  reconnect(): void;
  close(): void;
  addEventListener<K extends keyof ProgressSocketEventMap>(
    type: K,
    listener: (this: ProgressSocket, event: ProgressSocketEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof ProgressSocketEventMap>(
    type: K,
    listener: (this: ProgressSocket, event: ProgressSocketEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** What `<job-progress>` takes, as attributes or properties. */
export interface JobProgressProps {
  /** A job's id, its frame, or null for none. */
  job?: string | Job | null | undefined;
  label?: string | null | undefined;
  /** The address of the socket. */
  src?: string | null | undefined;
  /** Where the job is as JSON, for one that is too old to be in the snapshot. */
  href?: string | null | undefined;
  /** What shows a result. */
  format?: Format | null | undefined;
}

/** Makes a text or a node of a job's result. */
export type Format = (job: Job) => string | Node;

export interface JobProgressEventMap extends HTMLElementEventMap {
  job: CustomEvent<Job>;
  "job-end": CustomEvent<Job>;
}

/** The element `<job-progress>`. */
export class JobProgress extends HTMLElement {
  static readonly observedAttributes: string[];
  /** What shows results in all elements that have no `format` of their own. */
  static format: Format;
  /** Reads as the id. */
  get job(): string;
  set job(value: JobProgressProps["job"]);
  get label(): string;
  set label(value: JobProgressProps["label"]);
  get src(): string;
  set src(value: JobProgressProps["src"]);
  get href(): string;
  set href(value: JobProgressProps["href"]);
  get format(): Format;
  set format(value: JobProgressProps["format"]);
  /** The element sets it: the job's state, or "unknown". */
  get state(): JobState | "unknown" | "";
  connectedCallback(): void;
  disconnectedCallback(): void;
  attributeChangedCallback(name: string, before: string | null, after: string | null): void;
  addEventListener<K extends keyof JobProgressEventMap>(
    type: K,
    listener: (this: JobProgress, event: JobProgressEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof JobProgressEventMap>(
    type: K,
    listener: (this: JobProgress, event: JobProgressEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

/**
 * A text with {holes}; or such texts by plural category, chosen by the hole {count}; or a function
 * of the holes' values.
 */
export type Text =
  | string
  | ({ readonly other: string } & { readonly [K in Intl.LDMLPluralRule]?: string })
  | ((values: Readonly<Record<string, unknown>>) => string);

/** The texts of this page. Change some with Object.assign, at any time. */
export const texts: Record<string, Text>;

/** The text of this key with its holes filled. */
export function sentence(key: string, values?: Readonly<Record<string, unknown>>): string;

/** Have a screen reader say `text`. Of each `key` only the newest text is said. */
export function announce(key: string, text: string): void;

/** The same for the `detail` of a "state" event. */
export function announceConnection(change: StateChange): void;

declare global {
  interface HTMLElementTagNameMap {
    "job-progress": JobProgress;
  }
}
