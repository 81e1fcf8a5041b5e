/** Mounts Vue's example, and unmounts it. */

import "./watched.js";
import { createApp } from "vue";
import Film from "./Film.vue";

const app = createApp(Film);
app.mount("#app");
document.getElementById("unmount").onclick = () => app.unmount();
