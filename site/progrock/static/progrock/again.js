/** Fills in the form with the params of an earlier job, to change them and run it once more. */

/**
 * Have the composer show the backend and the params of the job whose page is at `address`. Only
 * that page knows the params, because the socket does not tell them. Returns whether that worked.
 */
export async function fillFrom(address, composer) {
  const headers = { Accept: "text/html" };
  const answer = await fetch(address, { headers }).catch(() => null);
  if (!answer?.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const { backend } = page.getElementById("job").dataset;
  composer.fill(backend, JSON.parse(page.getElementById("job-params").textContent));
  return true;
}
