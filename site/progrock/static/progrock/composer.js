/** The form that starts jobs: the backend is chosen, its params are filled in, and it is sent. */

import { show } from "./dom.js";
import { ParamsForm } from "./form.js";
import { say } from "./words.js";

// Codes for visitors who may see no job. The notice on top says so, and once is enough.
const STRANGER = ["login_required", "no_audience"];
const byId = (id) => document.getElementById(id);

/**
 * Offer the backends that this socket may start. Returns {fill(backend, params)}, which chooses a
 * backend and fills in params, now or as soon as the backend is offered.
 */
export function showComposer(socket) {
  const form = byId("start");
  const select = form.elements.backend;
  const forms = new Map(); // backend → {schema, params}: what was typed for each is kept
  let backends; // none are known before the first snapshot
  let unsent = 0; // starts that the server has not answered
  let wanted = null; // {backend, params} to fill in

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show("problem", "");
    const backend = select.value || undefined;
    const { params } = forms.get(backend) ?? {};
    const given = params?.check();
    if (params && !given) return;
    tellUnsent(1);
    try {
      await socket.start({ backend, params: given });
    } catch (error) {
      tell(error, params);
    } finally {
      tellUnsent(-1);
    }
  });
  select.addEventListener("change", () => {
    show("problem", "");
    showParams();
  });
  document.addEventListener("progrock-texts", () => {
    for (const each of forms.values()) each.schema = null; // made anew, in the new words
    showParams();
    tellState();
  });
  socket.addEventListener("error", ({ detail }) => {
    if (!STRANGER.includes(detail.code)) show("problem", detail.message);
  });
  socket.addEventListener("snapshot", ({ detail }) => {
    if (socket.state !== "refused") offer(detail.backends); // then nothing is known of them
  });
  socket.addEventListener("state", tellState);
  tellState();
  return {
    fill(backend, params) {
      wanted = { backend, params };
      fillIn();
    },
  };

  /** Fill in what is wanted, if its backend is offered. The focus goes to the first field. */
  function fillIn() {
    const backend = backends?.find(({ name }) => name === wanted?.backend);
    if (!backend) return;
    show("problem", "");
    select.value = backend.name;
    showParams();
    formOf(backend).fill(wanted.params);
    wanted = null;
    form.scrollIntoView({ block: "nearest" });
    (form.querySelector("#params :is(input, select, textarea)") ?? select).focus();
  }

  /** Show why a start was refused: at its field, if that is on the page. */
  function tell({ code, message }, params) {
    const shown = params?.element.isConnected;
    if (code !== "bad_params" || !shown || !params.complain(message)) show("problem", message);
  }

  function tellState() {
    byId("go").disabled = socket.state === "refused";
    tellUnsent(0);
  }

  /** Show how many starts wait for a connection; `change` is added to their number. */
  function tellUnsent(change) {
    unsent += change;
    const waits = unsent && socket.state === "offline";
    show("unsent", waits ? say("page_unsent", { count: unsent }) : "");
  }

  /** Offer these backends; keep what was chosen, and what was typed. */
  function offer(found) {
    if (socket.state === "refused") return; // then it does not know them
    const startable = found.filter(({ start }) => start);
    if (JSON.stringify(startable) === JSON.stringify(backends)) return;
    backends = startable;
    const chosen = select.value;
    const option = ({ name, title }) => new Option(title, name, false, name === chosen);
    select.replaceChildren(...backends.map(option));
    form.hidden = !backends.length;
    byId("nothing").hidden = !form.hidden;
    byId("how").hidden = form.hidden;
    showParams();
    fillIn();
  }

  /** Show the form of the backend that is chosen. */
  function showParams() {
    const backend = backends?.find(({ name }) => name === select.value);
    show("about", backend?.params?.description ?? "");
    const element = backend && formOf(backend).element;
    if (element?.isConnected) return;
    byId("params").replaceChildren(...(element ? [element] : []));
  }

  function formOf({ name, params: schema }) {
    const known = forms.get(name);
    const text = JSON.stringify(schema);
    if (known?.schema === text) return known.params;
    const params = new ParamsForm(schema);
    if (known) params.fill(known.params.params);
    forms.set(name, { schema: text, params });
    return params;
  }
}
