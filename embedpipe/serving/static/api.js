// Requests to the server. Row numbers hold for one key of the store, which goes with every request.

export class Refused extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

export const store = { key: "", label: "label" };

async function ask(path, values, options) {
  const query = new URLSearchParams({ key: store.key, ...values });
  let answer;
  try {
    answer = await fetch(`api/${path}?${query}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is embedpipe still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.error || `The server answered ${answer.status}.`);
}

/** Keep the digits of integers that JavaScript cannot hold, as text; older browsers do not know the source. */
const exact = (key, value, context) => (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source) ? context.source : value);
const parsed = async (answer) => JSON.parse(await answer.text(), exact);

export async function openStore() {
  const info = await parsed(await ask("store", {}));
  store.key = info.key;
  store.label = info.label;
  return info;
}

export const read = async (path, values = {}, options = {}) => parsed(await ask(path, values, options));
export const readBytes = async (path, values = {}) => (await ask(path, values)).arrayBuffer();
export const send = (path, value, method = "POST") =>
  read(path, {}, { method, body: JSON.stringify(value), headers: { "content-type": "application/json" } });
export const upload = (path, file) =>
  read(path, {}, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });

export const pictureOf = (row, size = "small") => `api/rows/${row}/picture?key=${store.key}&size=${size}`;
export const uploadedPicture = (query) => `api/queries/${query}/picture`;
