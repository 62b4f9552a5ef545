// The description of the API as a page, made from openapi.json.

import { $, el } from "./dom.js";

/** Say the type of a value, or the name of the object that it is. */
function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.format || schema.type || "any value";
}

function parameter({ name, in: place, required, schema, description }) {
  const fallback = schema?.default === undefined || schema.default === "" ? "" : `, default ${schema.default}`;
  return [el("dt", {}, name), el("dd", {}, `${typeOf(schema)} in the ${place}${required ? ", required" : fallback}. ${description || ""}`)];
}

function content(part) {
  return Object.entries(part?.content || {}).map(([kind, { schema }]) => (kind === "application/json" ? `JSON: ${typeOf(schema)}` : kind)).join(" or ");
}

function route(path, method, { description, summary, parameters = [], requestBody, responses }) {
  const listed = parameters.flatMap(parameter);
  const body = content(requestBody);
  if (body) listed.push(el("dt", {}, "body"), el("dd", {}, body));
  const answers = Object.entries(responses).map(([status, answer]) => `${status} ${content(answer) || answer.description}`);
  listed.push(el("dt", {}, "answers"), el("dd", {}, answers.join("; ")));
  return el("section", {}, el("h2", {}, `${method.toUpperCase()} ${path}`), el("p", {}, description || summary), el("dl", {}, ...listed));
}

const { paths } = await (await fetch("api/openapi.json")).json();
$("routes").replaceChildren(...Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => route(path, method, operation))));
