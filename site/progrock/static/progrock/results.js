/**
 * A job's result for people: an address as a link, flat objects as a table, the rest as text. What
 * is long is closed. Everything becomes text, never HTML, and only http(s) addresses become links.
 */

import { make } from "./dom.js";
import { language, say } from "./words.js";

const MOST_ROWS = 200; // of a table
const MOST_COLUMNS = 12;
const LONG_TABLE = 12; // rows; what is longer is closed at first
const LONG_TEXT = 1_500; // characters

/** What a value is shown as: "nothing", "link", "text", "pairs", "rows" or "json". */
export function kindOf(value) {
  if (value === null || value === undefined) return "nothing";
  if (typeof value === "string") return isAddress(value) ? "link" : "text";
  if (typeof value !== "object") return "text";
  const rows = Array.isArray(value) ? value : [value];
  if (!rows.length || !rows.every(isFlat)) return "json";
  if (!Array.isArray(value)) return "pairs";
  return columnsOf(rows).length <= MOST_COLUMNS ? "rows" : "json";
}

/** An element that shows this value; one that is long is closed, with a summary. */
export function present(value) {
  const [element, summary] = shown(value);
  return summary ? folded(element, summary) : element;
}

/** The same, but open: for a place that folds by itself. */
export const presentOpen = (value) => shown(value)[0];

/**
 * An element that shows the value of this JSON text. A number with more digits than JavaScript
 * keeps stays as it is written.
 */
export function presentText(text) {
  if (!/(?<![\d.])\d{16,}/.test(text)) return present(JSON.parse(text));
  return text.length > LONG_TEXT ? folded(code(text), say("page_long")) : code(text);
}

/** What shows a value, and the summary under which it is closed, where it is long. */
function shown(value) {
  const kind = kindOf(value);
  if (kind === "link") return [make("p", { className: "value" }, link(value))];
  if (kind === "pairs") {
    return [pairs(value), Object.keys(value).length > LONG_TABLE && say("page_long")];
  }
  if (kind === "rows") return [table(value), value.length > LONG_TABLE && counted(value)];
  const text = typeof value === "string" ? value : JSON.stringify(value ?? null, null, 2);
  if (text.length > LONG_TEXT) return [code(text), say("page_long")];
  return [kind === "text" ? make("p", { className: "value" }, text) : code(text)];
}

function isFlat(value) {
  return (
    value !== null &&
    typeof value === "object" &&
    !Array.isArray(value) &&
    Object.keys(value).length > 0 &&
    Object.values(value).every((each) => each === null || typeof each !== "object")
  );
}

function isAddress(text) {
  return /^https?:\/\/[^\s]+$/i.test(text) && URL.canParse(text);
}

function columnsOf(rows) {
  return [...new Set(rows.flatMap(Object.keys))];
}

function link(address) {
  return make("a", { href: address, rel: "noopener noreferrer" }, address);
}

function code(text) {
  return make("pre", { className: "json", tabIndex: 0 }, text);
}

/** A table of two columns: names and values. */
function pairs(object) {
  const rows = Object.entries(object).map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name), cell(value)),
  );
  return scrolling(make("table", { className: "pairs" }, make("tbody", {}, ...rows)));
}

/** A table with a row for each object. */
function table(objects) {
  const names = columnsOf(objects);
  const isNumber = (name) => objects.every((each) => typeof (each[name] ?? 0) === "number");
  const head = names.map((name) =>
    make("th", { scope: "col", className: isNumber(name) ? "number" : "" }, name),
  );
  const rows = objects
    .slice(0, MOST_ROWS)
    .map((object) => make("tr", {}, ...names.map((name) => cell(object[name]))));
  const body = make("tbody", {}, ...rows);
  const top = make("thead", {}, make("tr", {}, ...head));
  return scrolling(make("table", { className: "rows" }, top, body));
}

function cell(value) {
  const found = make("td");
  if (typeof value === "number") found.className = "number";
  if (kindOf(value) === "link") found.append(link(value));
  else if (value !== null && value !== undefined) found.append(String(value));
  return found;
}

/** A wide table scrolls by itself, also by keyboard, so that the page does not. */
function scrolling(table) {
  return make("div", { className: "scroll", tabIndex: 0 }, table);
}

function counted({ length }) {
  const count = length.toLocaleString(language());
  if (length <= MOST_ROWS) return say("page_rows", { count: length });
  return say("page_some_rows", { shown: MOST_ROWS, count });
}

function folded(content, summary) {
  return make("details", { className: "long" }, make("summary", {}, summary), content);
}
