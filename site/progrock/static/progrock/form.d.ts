/** Types of form.js. docs/javascript.md says what each member does. */

/** The fields of one backend's params. */
export class ParamsForm {
  /** `schema` is a JSON Schema, or null where the backend has none. */
  constructor(schema: unknown);
  /** Put it into a `<form novalidate>`. */
  readonly element: HTMLElement;
  /** The params as they are filled in. */
  readonly params: Record<string, unknown>;
  /** The params, or null where something is wrong. It is then shown at its field. */
  check(): Record<string, unknown> | null;
  /** Fill in these params. Fields that they do not name become empty. */
  fill(params: Record<string, unknown> | null): void;
  /** Show a complaint of the server at the field that it names. False where there is none. */
  complain(message: string): boolean;
}
