/** Mounts React's example, twice over as StrictMode does, and unmounts it. */

import "./watched.js";
import { StrictMode, createElement } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { Film } from "./Film.jsx";

const app = document.getElementById("app");
const film = createElement(StrictMode, null, createElement(Film));
let root;
if (location.search === "?hydrate") {
  app.innerHTML = renderToString(film); // the server's part
  root = hydrateRoot(app, film, { onRecoverableError: reportError });
} else {
  root = createRoot(app);
  root.render(film);
}
document.getElementById("unmount").onclick = () => root.unmount();
