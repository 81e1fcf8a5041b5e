/** <job-progress> in React's JSX. */

import { useRef } from "react";
import type { Job, JobProgress } from "progrock-client";

export function Film({ job }: { job: Job | null }) {
  const element = useRef<JobProgress>(null);
  return (
    <>
      <job-progress job={job} format={({ result }) => `${result} frames`} />
      <job-progress job="0f4b" label="Film" href="/jobs/0f4b" src="/prog/" className="wide" />
      <job-progress
        ref={element}
        key="film"
        onjob={({ detail }) => detail.progress}
        onjob-end={({ detail }) => detail.state}
        onClick={({ clientX }) => clientX}
      />
      {/* @ts-expect-error: a job is an id or a frame */}
      <job-progress job={7} />
      {/* @ts-expect-error: there is no such attribute */}
      <job-progress jobs="0f4b" />
      {/* @ts-expect-error: the event's detail is a job */}
      <job-progress onjob-end={({ detail }) => detail.live} />
    </>
  );
}
