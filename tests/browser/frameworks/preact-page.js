/** Mounts the same example in Preact, and unmounts it. */

import "./watched.js";
import { h, hydrate, render } from "preact";
import { Film } from "./PreactFilm.jsx";

const app = document.getElementById("app");
if (location.search === "?hydrate") {
  app.innerHTML = '<button>Render</button><job-progress label="Film"></job-progress>';
  hydrate(h(Film), app);
} else render(h(Film), app);
document.getElementById("unmount").onclick = () => render(null, app);
