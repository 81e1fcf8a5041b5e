/** Mounts the same example in Preact, and unmounts it. */

import "./watched.js";
import { h, render } from "preact";
import { Film } from "./PreactFilm.jsx";

const app = document.getElementById("app");
render(h(Film), app);
document.getElementById("unmount").onclick = () => render(null, app);
