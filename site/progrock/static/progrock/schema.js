/**
 * Reads a JSON Schema into the fields of a form, and says what is wrong with a value. There is no
 * page in here: form.js makes the form.
 *
 * A field is {kind, key, path, title, description, required, nullable, initial, example} and, by
 * its kind:
 *   "text"      {format, long, least, most, pattern}: lengths in characters
 *   "number", "integer"   {min, max, above, below, step}
 *   "boolean"   {must}: true where nothing but true is taken
 *   "choice"    {options: [{value, label}]}
 *   "list"      {item, least, most, unique}: `item` is the field of each entry
 *   "group"     {fields}
 *   "json"      {any}: what has no field of its own is written as JSON; without `any`, an object
 * `path` is how the server calls it, such as "params.film.title". What is wrong is told as
 * [key, values]: the key of a sentence in `texts`, and the values of its holes.
 */

const DEEPEST = 20; // references that lead from one to the next; more must be a circle
const LONG_TEXT = 200; // characters from which on a text gets several lines
const SIMPLE = ["text", "number", "integer", "boolean", "choice"];
const BRANCHES = ["anyOf", "oneOf"];
const HOLDS = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "minItems", "maxItems", "uniqueItems"],
  string: ["minLength", "maxLength", "pattern", "format"],
  number: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
};

/** The field for params with this schema: a group, or JSON where it has no fields to offer. */
export function plan(schema) {
  const place = { root: schema, key: "", path: "params", required: false, depth: 0 };
  try {
    const found = schema && fieldOf(schema, place);
    if (found?.kind === "group") return found;
  } catch {
    // A schema that nobody understands must not break the page.
  }
  return { ...nameless(place), kind: "json", any: false };
}

/** What is wrong with a value, or null. `written` is the text that was typed for a number. */
export function wrong(field, value, written = "") {
  const { least, most } = field;
  if (field.kind === "text") {
    const length = [...value].length;
    if (length < least) return ["form_short", { count: least }];
    if (length > most) return ["form_long", { count: most }];
    if (!fits(field.pattern, value)) return ["form_pattern", { pattern: field.pattern }];
  } else if (field.kind === "number" || field.kind === "integer") {
    return wrongNumber(field, value, written);
  } else if (field.kind === "boolean") {
    if (field.must && !value) return ["form_must", {}];
  } else if (field.kind === "list") {
    if (value.length < least) return ["form_few", { count: least }];
    if (value.length > most) return ["form_many", { count: most }];
    const different = new Set(value.map((each) => JSON.stringify(each))).size;
    if (field.unique && different < value.length) return ["form_twice", {}];
  }
  return null;
}

/** The value of a JSON text: {value}, or {wrong}. Unless `any` is true, it must be an object. */
export function parse(text, any = true) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { wrong: ["form_no_json", { error: error.message }] };
  }
  if (!any && (value === null || typeof value !== "object" || Array.isArray(value))) {
    return { wrong: ["form_no_object", {}] };
  }
  const numbers = text.replace(/"(?:[^"\\]|\\.)*"/g, '""').match(/-?\d[\d.eE+-]*/g) ?? [];
  if (numbers.some(isInexact)) return { wrong: inexact() };
  return { value };
}

function wrongNumber({ kind, min, max, above, below, step }, value, written) {
  if (kind === "integer" && !Number.isInteger(value)) return ["form_whole", {}];
  const whole = kind === "integer" ? !Number.isSafeInteger(value) : isInexact(written);
  if (whole) return inexact();
  if (value < min) return ["form_min", { min }];
  if (value > max) return ["form_max", { max }];
  if (value <= above) return ["form_above", { above }];
  if (value >= below) return ["form_below", { below }];
  const times = value / step;
  const off = Math.abs(times - Math.round(times));
  if (off > 1e-9 * Math.max(1, Math.abs(times))) return ["form_step", { step }];
  return null;
}

/** Whether a number's text is a whole number whose last digits JavaScript loses. */
function isInexact(written) {
  return /^[+-]?\d+$/.test(written) && !Number.isSafeInteger(Number(written));
}

function inexact() {
  return ["form_inexact", { most: Number.MAX_SAFE_INTEGER }];
}

/** Whether a text fits a pattern. The server checks one that JavaScript cannot read. */
function fits(pattern, value) {
  if (pattern === undefined) return true;
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    return true;
  }
}

/** The field of a schema; null where nothing can be given. */
function fieldOf(written, place) {
  let schema;
  try {
    schema = resolved(written, place.root);
  } catch {
    return { ...nameless(place), kind: "json", any: true };
  }
  if (schema === false) return null;
  const { types, nullable } = typesOf(schema);
  const options = optionsOf(schema, place.root);
  const field = {
    ...nameless(place),
    title: textOf(schema.title) || wordsOf(place.key),
    description: textOf(schema.description),
    initial: schema.default ?? undefined, // some schemas say null where there is no default
    example: schema.examples?.[0],
    nullable: nullable || Boolean(options?.some(({ value }) => value === null)),
  };
  const must = types[0] === "boolean" && schema.const === true;
  if (options && !must) {
    return { ...field, kind: "choice", options: options.filter(({ value }) => value !== null) };
  }
  const made = types.length === 1 ? KINDS[types[0]]?.(schema, place) : null;
  return made ? { ...field, ...made } : { ...field, kind: "json", any: true };
}

const KINDS = {
  string: ({ format, minLength, maxLength, pattern, default: initial }) => ({
    kind: "text",
    format,
    long: maxLength > LONG_TEXT || minLength > LONG_TEXT || /\n/.test(initial),
    least: minLength,
    most: maxLength,
    pattern,
  }),
  number: (schema) => ({ kind: "number", ...limitsOf(schema) }),
  integer: (schema) => ({ kind: "integer", ...limitsOf(schema) }),
  boolean: (schema) => ({ kind: "boolean", must: schema.const === true }),
  array(schema, place) {
    const { items, minItems: least, maxItems: most, uniqueItems: unique } = schema;
    if (!items || Array.isArray(items) || schema.prefixItems) return null;
    const item = fieldOf(items, { ...place, key: "", required: false, depth: place.depth + 1 });
    return SIMPLE.includes(item?.kind) ? { kind: "list", item, least, most, unique } : null;
  },
  object(schema, place) {
    const { properties = {}, additionalProperties: more } = schema;
    const required = [schema.required].flat();
    const names = Object.keys(properties);
    if (place.depth > 1 || (!names.length && more !== false)) return null;
    if (offered(schema, place.root).some((name) => !names.includes(name))) return null;
    for (const name of required) {
      if (typeof name === "string" && !names.includes(name)) names.push(name);
    }
    const fields = names.map((key) =>
      fieldOf(Object.hasOwn(properties, key) ? properties[key] : {}, {
        root: place.root,
        key,
        path: `${place.path}.${key}`,
        required: required.includes(key),
        depth: place.depth + 1,
      }),
    );
    return { kind: "group", fields: fields.filter(Boolean) };
  },
};

function nameless({ key, path, required }) {
  return { key, path, required, title: wordsOf(key), description: "", nullable: false };
}

/** "max_pages" and "maxPages" are "Max pages". */
function wordsOf(key) {
  const words = key.replace(/([a-z\d])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1).replace(/\b[A-Z](?=[a-z])/g, lower);
}

const lower = (letter) => letter.toLowerCase();
const textOf = (value) => (typeof value === "string" ? value : "");

function limitsOf(schema) {
  const { minimum: min, maximum: max, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
  return {
    min,
    max,
    above: strict(exclusiveMinimum, min),
    below: strict(exclusiveMaximum, max),
    step: multipleOf,
  };
}

/** A limit that the value itself must not equal. In draft 4 it is `true`, and means `beside`. */
function strict(limit, beside) {
  if (typeof limit === "number") return limit;
  return limit === true ? beside : undefined;
}

/**
 * The schema with its references followed and its `allOf` laid into one. A branch that stands
 * beside "null" alone is laid in as well. Throws where a reference leads nowhere, or away from
 * here.
 */
function resolved(schema, root, deep = 0) {
  if (schema === true || schema === undefined) return {};
  if (schema === false) return false;
  if (typeof schema !== "object" || deep > DEEPEST) throw new Error("no schema");
  const { $ref, allOf, ...rest } = schema;
  const parts = ($ref === undefined ? [] : [pointedAt($ref, root)]).concat(allOf ?? []);
  let found = rest;
  for (const part of parts.map((each) => resolved(each, root, deep + 1)).reverse()) {
    if (part === false) return false;
    found = laid(part, found);
  }
  for (const name of BRANCHES) {
    const branches = found[name];
    const others = branches?.filter(({ type }) => type !== "null") ?? [];
    if (others.length === 1 && branches.length === 2) {
      const { [name]: _, ...without } = found;
      found = { ...laid(resolved(others[0], root, deep + 1) || {}, without), nullable: true };
    }
  }
  return found;
}

/** Two schemas as one. Where both have a keyword, that of the second counts. */
function laid(under, over) {
  const both = { ...under, ...over };
  if (under.properties && over.properties) {
    both.properties = { ...under.properties, ...over.properties };
  }
  if (under.required && over.required) both.required = [...under.required, ...over.required];
  return both;
}

/** What `$ref` leads to, such as "#/$defs/film". */
function pointedAt($ref, root) {
  if (!/^#(\/|$)/.test($ref)) throw new Error($ref);
  return decodeURIComponent($ref)
    .split("/")
    .slice(1)
    .map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((found, name) => {
      if (!Object.hasOwn(Object(found), name)) throw new Error($ref);
      return found[name];
    }, root);
}

function typesOf(schema) {
  const said = schema.type === undefined ? typesByWords(schema) : [schema.type].flat();
  const types = said.filter((each) => each !== "null");
  return { types, nullable: schema.nullable === true || types.length < said.length };
}

/** The type of a schema without `type`, from its other words. */
function typesByWords(schema) {
  const types = Object.keys(HOLDS);
  return types.filter((type) => HOLDS[type].some((word) => Object.hasOwn(schema, word)));
}

/**
 * The choices of a field, as {value, label}. A schema names them by `const`, by `enum`, or by
 * branches (`oneOf`, `anyOf`) that each have a `const`.
 */
function optionsOf(schema, root) {
  const label = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  if (schema.const !== undefined) return [{ value: schema.const, label: label(schema.const) }];
  if (schema.enum?.length) return schema.enum.map((value) => ({ value, label: label(value) }));
  for (const name of BRANCHES) {
    const branches = schema[name]?.map((each) => attempted(each, root));
    if (branches?.length && branches.every((each) => each?.const !== undefined)) {
      return branches.map(({ const: value, title }) => ({ value, label: title ?? label(value) }));
    }
  }
  return null;
}

/** The names of properties that only some of the values of a schema have. */
function offered(schema, root) {
  const { then, else: otherwise, dependentSchemas } = schema;
  const branches = BRANCHES.flatMap((name) => schema[name] ?? []);
  branches.push(then, otherwise, ...Object.values(dependentSchemas ?? {}));
  return branches.flatMap((each) => Object.keys(attempted(each, root)?.properties ?? {}));
}

function attempted(schema, root) {
  try {
    return resolved(schema, root);
  } catch {
    return null;
  }
}
