/** <job-progress> in the JSX of Preact. */

import type { HTMLAttributes } from "preact";
import type { Job, JobProgress, JobProgressProps } from "../progrock.js";

export interface JobProgressAttributes
  extends Omit<HTMLAttributes<JobProgress>, keyof JobProgressProps>, JobProgressProps {
  onjob?: ((event: CustomEvent<Job>) => void) | undefined;
  "onjob-end"?: ((event: CustomEvent<Job>) => void) | undefined;
}

declare module "preact" {
  namespace JSX {
    interface IntrinsicElements {
      "job-progress": JobProgressAttributes;
    }
  }
}
