/** <job-progress> in Vue's templates, which take its props from GlobalComponents. */

import type { GlobalComponents } from "vue";
import type { Job } from "progrock-client";

declare const job: Job;
type Props = InstanceType<GlobalComponents["job-progress"]>["$props"];

({ job, label: "Film", class: "wide", onJobEnd: ({ detail }) => detail.state }) satisfies Props;
({ job: "0f4b", href: "/jobs/0f4b", onJob: ({ detail }) => detail.progress }) satisfies Props;
({ job: null, src: null }) satisfies Props;
// @ts-expect-error: a job is an id or a frame
({ job: 7 }) satisfies Props;
// @ts-expect-error: there is no such prop
({ jobs: "0f4b" }) satisfies Props;
// @ts-expect-error: the event's detail is a job
({ onJobEnd: ({ detail }) => detail.live }) satisfies Props;
