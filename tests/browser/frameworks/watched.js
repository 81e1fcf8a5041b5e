/** Shows the tests what the page has imported. */

import * as client from "progrock-client";

window.client = client;
