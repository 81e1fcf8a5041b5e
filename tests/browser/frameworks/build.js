/** Builds all pages, with the configuration that docs/javascript.md shows. */

import { build, mergeConfig } from "vite";
import config from "./vite.config.js";

const input = ["react.html", "preact.html", "vue.html", "htmx.html"];
await build(
  mergeConfig(config, {
    base: "/pages/",
    logLevel: "warn",
    build: { rolldownOptions: { input } },
    configFile: false,
  }),
);
