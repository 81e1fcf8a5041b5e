/** The few steps that all modules of the pages share. */

/** Make an element with these properties and children; texts become text, never HTML. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Show a text in the element with this id; hide the element where there is none. */
export function show(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}
