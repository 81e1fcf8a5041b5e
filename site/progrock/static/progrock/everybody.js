/** The list of everybody's jobs: the server has written it, and here its times become local ones. */

import { localTimes } from "./times.js";

localTimes(document);
