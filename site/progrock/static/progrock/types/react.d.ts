/** <job-progress> in the JSX of React 19. */

import type { DetailedHTMLProps, HTMLAttributes } from "react";
import type { Job, JobProgress, JobProgressProps } from "../progrock.js";

export interface JobProgressAttributes
  extends DetailedHTMLProps<HTMLAttributes<JobProgress>, JobProgress>, JobProgressProps {
  onjob?: ((event: CustomEvent<Job>) => void) | undefined;
  "onjob-end"?: ((event: CustomEvent<Job>) => void) | undefined;
}

declare module "react" {
  namespace JSX {
    interface IntrinsicElements {
      "job-progress": JobProgressAttributes;
    }
  }
}
