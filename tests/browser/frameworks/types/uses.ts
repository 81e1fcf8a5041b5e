/** Uses all that the client exports, as the documentation says. */

import {
  JobProgress,
  ProgressError,
  ProgressSocket,
  announce,
  announceConnection,
  sentence,
  texts,
} from "progrock-client";
import type { Backend, ConnectionState, Job, JobState, Transport } from "progrock-client";
import "progrock-client/progrock.css";
import { ParamsForm } from "progrock-client/form";
import "progrock-client/form.css";

const socket: ProgressSocket = ProgressSocket.shared();
const own = new ProgressSocket(new URL("https://host.test/prog/"), { http: "/progrock/" });
own.csrf = "token";

try {
  const job: Job = await socket.start({ backend: "render", params: { seconds: 10 } });
  const again: Job = await socket.start({ request: "the same" });
  await socket.start();
  await socket.start({ backend: "render", signal: AbortSignal.timeout(10_000) });
  await socket.again(job, { request: "another" });
  await socket.again(job.job);
  socket.cancel(job);
  socket.cancel(again.job);
} catch (error) {
  if (error instanceof ProgressError) announce("start", `${error.code}: ${error.message}`);
}
new ProgressError({ code: "closed", message: "Closed." }).request satisfies string | null;

socket.addEventListener("job", ({ detail }) => detail.progress satisfies number | null);
socket.addEventListener("snapshot", ({ detail }) => detail.backends satisfies readonly Backend[]);
socket.addEventListener("status", ({ detail }) => detail.live satisfies boolean);
socket.addEventListener("transport", ({ detail }) => detail.transport satisfies Transport);
socket.addEventListener("error", ({ detail }) => detail.request satisfies string | null);
socket.addEventListener("refused", () => socket.reconnect(), { once: true });
socket.addEventListener("state", ({ detail }) => announceConnection(detail));
socket.removeEventListener("state", ({ detail }) => announceConnection(detail));
for (const [id, { state }] of socket.jobs) [id, state] satisfies [string, JobState];
socket.backends.map(({ name, params }) => [name, params]);
[socket.state, socket.message, socket.code] satisfies [ConnectionState, string, string];
socket.transport satisfies Transport | null;
own.close();

const element = document.createElement("job-progress");
element satisfies JobProgress;
element.job = [...socket.jobs.values()][0];
element.job = "0f4b6f1e-6d1c-4c39-9f3a-2b7f0c55a1d2";
element.job = null;
element.job.toUpperCase();
element.label = "Film";
element.src = element.href = null;
element.format = ({ result }) => `${result} frames`;
element.format = JobProgress.format = (job) => document.createTextNode(job.state);
element.format = null;
element.addEventListener("job", ({ detail }) => detail.message);
element.addEventListener("job-end", ({ detail }) => detail.result satisfies unknown);
element.addEventListener("click", ({ clientX }) => clientX);
document.querySelector("job-progress")?.state satisfies JobState | "unknown" | "" | undefined;

Object.assign(texts, { cancel: "Stop it" });
texts["jobs"] = { one: "{count} job", other: "{count} jobs" };
texts["percent"] = ({ percent }) => `${percent} of 100`;
sentence("percent", { percent: 7 }) satisfies string;

const params = new ParamsForm(socket.backends[0]?.params ?? null);
document.querySelector("form")?.prepend(params.element);
await socket.start({ params: params.check() ?? params.params });
params.fill({ seconds: 10 });
params.fill(null);
params.complain("The seconds are too many.") satisfies boolean;
