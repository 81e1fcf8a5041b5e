/** <job-progress> in the templates of Vue 3. */

import type { HTMLAttributes, PublicProps } from "vue";
import type { Job, JobProgress, JobProgressProps } from "../progrock.js";

export interface JobProgressAttributes
  extends HTMLAttributes, Omit<PublicProps, keyof HTMLAttributes>, JobProgressProps {
  onJob?: ((event: CustomEvent<Job>) => void) | undefined;
  onJobEnd?: ((event: CustomEvent<Job>) => void) | undefined;
}

declare module "vue" {
  interface GlobalComponents {
    "job-progress": new () => JobProgress & { $props: JobProgressAttributes };
  }
}
