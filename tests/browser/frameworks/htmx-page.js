/** The libraries of the page; all else is in its HTML. */

import "htmx.org";
import "./watched.js";
