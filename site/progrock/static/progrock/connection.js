/** The connection as the pages show it: the chip on top, the notice, and what is said aloud. */

import { announceConnection } from "./progrock.js";
import { show } from "./dom.js";
import { say } from "./words.js";

/** Show how this socket is connected, from now on. */
export function showConnection(socket) {
  const chip = document.getElementById("connection");
  const notice = document.getElementById("notice");
  const tell = () => {
    const { state, message, code } = socket;
    const stranger = code === "no_audience"; // signed in, but may see nothing: no login helps
    chip.dataset.state = state;
    show("connection-word", say(stranger ? "page_no_audience" : `page_${state}`));
    show("notice-text", message);
    notice.hidden = !message;
    document.getElementById("notice-link").hidden = state !== "refused" || stranger;
  };
  socket.addEventListener("state", ({ detail }) => {
    announceConnection(detail);
    tell();
  });
  document.addEventListener("progrock-texts", tell);
  tell();
}
