/** Mounts Vue's example, and unmounts it. */

import "./watched.js";
import { createApp, createSSRApp } from "vue";
import Film from "./Film.vue";

const app = location.search === "?hydrate" ? createSSRApp(Film) : createApp(Film);
if (location.search === "?hydrate") {
  const html = '<!--[--><button>Render</button><job-progress label="Film"></job-progress><!--v-if--><!--]-->';
  document.getElementById("app").innerHTML = html;
}
app.mount("#app");
document.getElementById("unmount").onclick = () => app.unmount();
