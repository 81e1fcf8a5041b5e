/**
 * A form for the params of a backend, made from their JSON Schema.
 *
 *     import { ParamsForm } from "/static/progrock/form.js";
 *     const params = new ParamsForm(backend.params); // of socket.backends, or null
 *     form.prepend(params.element); // <form novalidate>
 *     form.addEventListener("submit", async (event) => {
 *       event.preventDefault();
 *       const given = params.check();
 *       if (given) await socket.start({ backend: backend.name, params: given });
 *     });
 *
 * Which schema makes which field is told in docs/backends.md, and all the rest in
 * docs/javascript.md. progrock.css lays the fields out; their parts have a `data-part`.
 */

import { sentence, texts } from "./progrock.js";
import { parse, plan, wrong } from "./schema.js";

/** The sentences of forms; progrock/texts.py has the same ones. */
const TEXTS = {
  form_add: "Add",
  form_above: "Write a number above {above}.",
  form_below: "Write a number below {below}.",
  form_choose: "Choose…",
  form_date_time: "In your own time, {zone}.",
  form_few: {
    one: "Give at least {count} entry.",
    other: "Give at least {count} entries.",
  },
  form_inexact: "A browser loses the last digits of whole numbers above {most}.",
  form_json: "Written as JSON.",
  form_long: {
    one: "Write {count} character at most.",
    other: "Write {count} characters at most.",
  },
  form_many: {
    one: "Give {count} entry at most.",
    other: "Give {count} entries at most.",
  },
  form_max: "Write {max} or less.",
  form_min: "Write {min} or more.",
  form_must: "Tick this to go on.",
  form_no_json: "This is not JSON: {error}.",
  form_no_object: 'Write a JSON object, such as {"name": "value"}.',
  form_none: "No choice",
  form_nothing: "There is nothing to fill in.",
  form_numbered: "{title} {number}",
  form_optional: "optional",
  form_params: "Params",
  form_pattern: "This does not have the form that is wanted: {pattern}",
  form_remove: "Remove",
  form_remove_entry: "Remove {name}",
  form_required: "Fill this in.",
  form_short: {
    one: "Write at least {count} character.",
    other: "Write at least {count} characters.",
  },
  form_step: "Write a multiple of {step}.",
  form_twice: "Two entries are the same.",
  form_whole: "Write a whole number.",
};
// The texts that the page brought with it, in its language, stay.
for (const [key, text] of Object.entries(TEXTS)) texts[key] ??= text;

let made = 0; // ids of elements end in this number

/**
 * The fields of one backend's params. `element` holds them; put it into a <form novalidate>.
 * A schema that makes no form, or null, gives one field for JSON.
 */
class ParamsForm {
  #root;

  constructor(schema) {
    const field = plan(schema);
    if (field.kind === "json") field.title = sentence("form_params");
    this.#root = field.kind === "group" ? new Group(field) : new Control(field);
    this.element = make("div", "params", { className: "progrock-params" });
    if (field.kind === "json") this.element.append(this.#root.element);
    else if (field.fields.length) this.element.append(...this.#root.elements);
    else this.element.append(make("p", "hint", { textContent: sentence("form_nothing") }));
  }

  /** The params as they are filled in. What is empty and not required is left out. */
  get params() {
    return this.#root.value ?? {};
  }

  /** The params, or null where a field is wrong. It then says so, and the first one is focused. */
  check() {
    const first = this.#root.check();
    first?.focus();
    return first ? null : this.params;
  }

  /** Fill in these params. Fields that they do not name become empty. */
  fill(params) {
    this.#root.fill(params ?? {});
  }

  /**
   * Show the server's complaint, such as "params.pages: 0 is less than the minimum", at the field
   * that it names, and give that field the focus. Returns false where there is no such field.
   */
  complain(message) {
    const found = this.#root.find(message);
    if (!found) return false;
    const { control, length } = found;
    const isJson = control.field.kind === "json"; // then the path says where in the JSON
    control.tell(isJson ? message : message.slice(length).replace(/^[^:]*:\s*/, ""));
    control.focus();
    return true;
  }
}

/** What a single field, a group and a list have in common: parts, and a problem that is told. */
class Part {
  constructor(field, tag) {
    this.field = field;
    this.id = `progrock-params-${++made}`;
    this.element = make(tag, "field");
    this.element.dataset.kind = field.kind;
    this.hint = make("span", "hint", { id: `${this.id}-hint`, textContent: hintOf(field) });
    this.hint.hidden = !this.hint.textContent;
    this.problem = make("span", "problem", { id: `${this.id}-problem`, hidden: true });
  }

  /** What this field is called, with a word where it may be left out. */
  named(tag, title = this.field.title) {
    const element = make(tag, "label", { textContent: title });
    const { kind, required, initial } = this.field;
    const plain = required || initial !== undefined || kind === "boolean" || kind === "list";
    if (title && !plain) {
      element.append(" ", make("span", "optional", { textContent: sentence("form_optional") }));
    }
    return element;
  }

  /** Show this sentence as what is wrong; an empty one hides it. */
  tell(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
    const { target } = this;
    if (text && target !== this.element) target.setAttribute("aria-invalid", true);
    else target.removeAttribute("aria-invalid"); // a fieldset may not have it
    const told = [this.hint, this.problem].filter((each) => !each.hidden).map(({ id }) => id);
    if (told.length) target.setAttribute("aria-describedby", told.join(" "));
    else target.removeAttribute("aria-describedby");
  }

  /** Nothing is wrong here any more. */
  clear() {
    this.tell("");
  }

  focus() {
    this.target.focus();
  }

  /** {control: this, length: of its path} if the message begins with the path of this part. */
  find(message) {
    const { path } = this.field;
    const names = message.startsWith(path) && /^[.:]/.test(message.slice(path.length));
    return names ? { control: this, length: path.length } : null;
  }
}

/** One field with one control. */
class Control extends Part {
  constructor(field) {
    super(field, "div");
    const kind = KINDS[field.kind];
    const target = (this.target = kind.make(field));
    target.id = this.id;
    target.name = field.path;
    target.required = field.required && (field.kind !== "boolean" || field.must);
    const box = target.matches("select") ? make("span", "select") : null;
    box?.append(target);
    this.label = this.named("label");
    this.label.htmlFor = this.id;
    this.element.append(this.label, box ?? target, this.hint, this.problem);
    if (field.kind === "boolean") this.element.prepend(target);
    if (field.initial !== undefined) kind.write(target, field.initial, field);
    this.tell("");
    // Once a problem is told, each change shows whether it is still there.
    const again = () => this.problem.hidden || this.tell(this.complaint());
    target.addEventListener("input", again);
  }

  get empty() {
    return KINDS[this.field.kind].read(this.target, this.field) === undefined;
  }

  /** The value; undefined where it is left out, or cannot be read. */
  get value() {
    const value = KINDS[this.field.kind].read(this.target, this.field);
    if (value === undefined && this.field.required && this.field.nullable) return null;
    return value;
  }

  /** Whether something is written that is no value. */
  get unreadable() {
    const { value, validity } = this.target;
    return validity.badInput || (this.field.kind === "json" && value.trim() !== "" && this.empty);
  }

  /** What is wrong, as a sentence, or "". */
  complaint() {
    const { field, target } = this;
    const { badInput, typeMismatch } = target.validity;
    if (badInput || typeMismatch) return target.validationMessage; // the browser says it best
    if (field.kind === "json" && target.value.trim()) {
      const { wrong: found } = parse(target.value, field.any);
      return found ? sentence(...found) : "";
    }
    const { value } = this;
    if (value === undefined || value === null) {
      return field.required && !field.nullable ? sentence("form_required") : "";
    }
    const found = wrong(field, value, target.value);
    return found ? sentence(...found) : "";
  }

  check() {
    this.tell(this.complaint());
    return this.problem.hidden ? null : this;
  }

  fill(value) {
    KINDS[this.field.kind].write(this.target, value, this.field);
    this.tell("");
  }
}

/** Several fields, in a frame with a title. */
class Group extends Part {
  constructor(field) {
    super(field, "fieldset");
    this.parts = field.fields.map(partOf);
    this.elements = this.parts.map(({ element }) => element);
    const fields = make("div", "fields");
    fields.append(...this.elements);
    this.element.append(this.named("legend"), this.hint, this.problem, fields);
    this.target = this.element;
    this.target.tabIndex = -1;
    if (field.initial !== undefined) this.fill(field.initial);
    this.untouched = JSON.stringify(this.#given());
    this.tell("");
  }

  /** A group that may be left out, and that nobody has touched, is left out. */
  get value() {
    const given = this.#given();
    const text = JSON.stringify(given);
    const left = text === this.untouched || text === "{}";
    return left && !this.field.required && this.field.path !== "params" ? undefined : given;
  }

  #given() {
    const given = Object.create(null); // so that "__proto__" is a name like others
    for (const { field, value } of this.parts) if (value !== undefined) given[field.key] = value;
    return given;
  }

  check() {
    this.tell("");
    const unreadable = this.parts.some((each) => each.unreadable);
    if (this.value === undefined && !unreadable) {
      this.parts.forEach((each) => each.clear());
      return null;
    }
    return this.parts.map((each) => each.check()).find(Boolean);
  }

  fill(values) {
    const given = Object(values);
    for (const part of this.parts) {
      part.fill(Object.hasOwn(given, part.field.key) ? given[part.field.key] : undefined);
    }
  }

  find(message) {
    const inside = this.parts.map((each) => each.find(message)).filter(Boolean);
    inside.sort((one, other) => other.length - one.length);
    return inside[0] ?? (this.field.path === "params" ? null : super.find(message));
  }
}

/** Entries of one kind, which are added and removed. Empty ones are left out. */
class List extends Part {
  constructor(field) {
    super(field, "fieldset");
    this.rows = [];
    this.list = make("ul", "rows");
    this.list.setAttribute("role", "list");
    this.add = button("add", sentence("form_add"));
    this.add.append(make("span", "hidden", { textContent: ` ${field.title}` }));
    this.add.addEventListener("click", () => this.#added().focus());
    this.element.append(this.named("legend"), this.hint, this.list, this.add, this.problem);
    this.target = this.element;
    this.target.tabIndex = -1;
    this.fill(field.initial);
  }

  get value() {
    const values = this.#filled().map(({ value }) => value);
    return values.length || this.field.required ? values : undefined;
  }

  get unreadable() {
    return this.rows.some((row) => row.unreadable);
  }

  #filled() {
    return this.rows.filter((row) => !row.empty);
  }

  check() {
    this.tell("");
    const first = this.rows.map((row) => row.check()).find(Boolean);
    const value = this.value ?? [];
    const found = this.value && wrong(this.field, value);
    if (first || !found) return first;
    this.tell(sentence(...found));
    return this;
  }

  clear() {
    super.clear();
    this.rows.forEach((row) => row.clear());
  }

  /** Give the focus to the first entry, or to the button that adds one. */
  focus() {
    (this.rows[0] ?? this.add).focus();
  }

  fill(values) {
    this.rows = [];
    this.list.replaceChildren();
    const given = Array.isArray(values) ? values : [];
    for (const each of given) this.#added().fill(each);
    const least = this.field.required ? Math.min(Math.max(this.field.least ?? 0, 1), 20) : 0;
    while (this.rows.length < least) this.#added();
    this.tell("");
  }

  #added() {
    const row = new Control({ ...this.field.item, description: "" });
    row.label.dataset.part = "hidden";
    const item = make("li", "row");
    row.remove = button("remove", sentence("form_remove"));
    row.remove.addEventListener("click", () => this.#removed(row));
    item.append(row.element, row.remove);
    this.list.append(item);
    this.rows.push(row);
    this.#number();
    return row;
  }

  /** Take an entry away. The focus goes to the next one, or to the last. */
  #removed(row) {
    const index = this.rows.indexOf(row);
    this.rows.splice(index, 1);
    row.element.parentElement.remove();
    this.#number();
    (this.rows[Math.min(index, this.rows.length - 1)]?.remove ?? this.add).focus();
    if (!this.problem.hidden) this.check();
  }

  #number() {
    this.rows.forEach((row, index) => {
      const name = sentence("form_numbered", { title: this.field.title, number: index + 1 });
      row.label.textContent = name;
      row.remove.setAttribute("aria-label", sentence("form_remove_entry", { name }));
    });
  }

  /** The server counts the entries that were sent. */
  find(message) {
    const found = super.find(message);
    const [, index] = found ? (/^\.(\d+)[.:]/.exec(message.slice(found.length)) ?? []) : [];
    const row = this.#filled()[index];
    return row ? { control: row, length: found.length + 1 } : found;
  }
}

function partOf(field) {
  if (field.kind === "group") return new Group(field);
  return field.kind === "list" ? new List(field) : new Control(field);
}

const INPUTS = {
  email: "email",
  uri: "url",
  date: "date",
  "date-time": "datetime-local",
  password: "password",
};

/** How the control of each kind is made, read and written. An empty one reads as undefined. */
const KINDS = {
  text: {
    make(field) {
      const placeholder = exampleOf(field);
      if (field.long) return make("textarea", "control", { rows: 4, placeholder });
      const input = make("input", "control", { placeholder });
      input.type = INPUTS[field.format] ?? "text";
      if (input.type === "datetime-local") input.step = "any";
      if (input.type === "password") input.autocomplete = "off";
      return input;
    },
    read({ value, type }) {
      if (value === "") return undefined;
      return type === "datetime-local" ? new Date(value).toISOString() : value;
    },
    write(input, value) {
      input.value = input.type === "datetime-local" ? localTime(value) : textOf(value);
    },
  },
  number: {
    make(field) {
      const input = make("input", "control", { type: "number", placeholder: exampleOf(field) });
      input.step = field.step ?? (field.kind === "integer" ? 1 : "any");
      input.inputMode = field.kind === "integer" ? "numeric" : "decimal";
      for (const name of ["min", "max"]) if (field[name] !== undefined) input[name] = field[name];
      return input;
    },
    read: ({ value }) => (value === "" ? undefined : Number(value)),
    write: (input, value) => (input.value = textOf(value)),
  },
  boolean: {
    make: () => make("input", "control", { type: "checkbox" }),
    // One that is not ticked says "no" only where that differs from saying nothing.
    read({ checked }, { required, initial }) {
      return checked || required || initial === true ? checked : undefined;
    },
    write(input, value, { initial }) {
      input.checked = (value === undefined ? initial : value) === true;
    },
  },
  choice: {
    make(field) {
      const select = make("select", "control");
      const word = field.required && !field.nullable ? "form_choose" : "form_none";
      select.append(new Option(sentence(word), ""));
      for (const { value, label } of field.options) select.append(new Option(label, textOf(value)));
      if (field.required && field.options.length === 1) select.selectedIndex = 1;
      return select;
    },
    read: ({ selectedIndex }, { options }) => options[selectedIndex - 1]?.value,
    write(select, value, { options }) {
      const same = JSON.stringify(value);
      select.selectedIndex = 1 + options.findIndex((each) => JSON.stringify(each.value) === same);
    },
  },
  json: {
    make(field) {
      const area = make("textarea", "control", { rows: 4, placeholder: exampleOf(field) });
      Object.assign(area, { spellcheck: false, autocapitalize: "off", autocomplete: "off" });
      return area;
    },
    read: ({ value }, { any }) => parse(value, any).value,
    write: (area, value) => (area.value = value === undefined ? "" : written(value)),
  },
};
KINDS.integer = KINDS.number;

const written = (value) => JSON.stringify(value, null, 2);

function textOf(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function exampleOf({ example, kind }) {
  return kind === "json" && example !== undefined ? written(example) : textOf(example);
}

/** A time with its zone, as the control wants it: in the reader's own time. */
function localTime(value) {
  const time = new Date(value);
  if (Number.isNaN(time.getTime())) return "";
  const local = new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString();
  return local.slice(0, local.endsWith(":00.000Z") ? 16 : 19);
}

function hintOf({ kind, format, description }) {
  const more = [description];
  if (kind === "json") more.push(sentence("form_json"));
  if (kind === "text" && format === "date-time") {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    more.push(sentence("form_date_time", { zone }));
  }
  return more.filter(Boolean).join(" ");
}

function button(part, text) {
  return make("button", part, { type: "button", textContent: text });
}

function make(tag, part, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  element.dataset.part = part;
  return element;
}

export { ParamsForm };
