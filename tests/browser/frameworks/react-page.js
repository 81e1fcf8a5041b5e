/** Mounts React's example, twice over as StrictMode does, and unmounts it. */

import "./watched.js";
import { StrictMode, createElement } from "react";
import { createRoot } from "react-dom/client";
import { Film } from "./Film.jsx";

const root = createRoot(document.getElementById("app"));
root.render(createElement(StrictMode, null, createElement(Film)));
document.getElementById("unmount").onclick = () => root.unmount();
