/** The list of everybody's jobs. The server writes times in UTC, and this makes them local. */

import { localTimes } from "./times.js";

localTimes(document);
