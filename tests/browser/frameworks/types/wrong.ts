/** Each of these is a mistake that the types tell. */

import { JobProgress, ProgressSocket, announce, sentence, texts } from "progrock-client";
import { ParamsForm } from "progrock-client/form";
// @ts-expect-error: it has no such export
import { ProgressPipe } from "progrock-client";

const socket = ProgressSocket.shared();
// @ts-expect-error: params are an object
socket.start({ params: 7 });
// @ts-expect-error: there is no such key
socket.start({ backends: "render" });
// @ts-expect-error: a start gives a promise
socket.start().job;
// @ts-expect-error: a job is no number
socket.cancel(7);
// @ts-expect-error: a job is wanted
socket.again({ request: "one" });
// @ts-expect-error: the server alone changes jobs
socket.jobs.set("one", {});
// @ts-expect-error: there is no such state
socket.state === "broken";
// @ts-expect-error: a job has no such key
socket.addEventListener("job", ({ detail }) => detail.percent);

const element = new JobProgress();
// @ts-expect-error: a job is an id or a frame
element.job = { id: "one" };
// @ts-expect-error: a result is shown as a text or a node
element.format = ({ progress }) => progress;
// @ts-expect-error: the element sets it
element.state = "running";
// @ts-expect-error: the event's detail is a job
element.addEventListener("job-end", ({ detail }) => detail.live);

// @ts-expect-error: a text is wanted
announce("key");
// @ts-expect-error: texts by plural category have an "other"
texts["jobs"] = { one: "{count} job" };
// @ts-expect-error: the key comes first
sentence({ percent: 7 });

// @ts-expect-error: a schema is wanted, or null
new ParamsForm();
// @ts-expect-error: a form has no such member
new ParamsForm(null).submit();
