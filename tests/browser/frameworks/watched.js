/** Shows the tests what there is to import. */

import * as client from "progrock-client";
import * as form from "progrock-client/form";
import "progrock-client/form.css";

Object.assign(window, { client, form });
