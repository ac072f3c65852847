// The server's routes. Errors come out as one readable line.

import { key } from "./key.js";

let model;

/**
 * Where something of this server is. Not relative to document.baseURI: a page opened as https://user:password@host may
 * not fetch addresses that hold these.
 */
export function address(path) {
  return new URL(path, location.origin + location.pathname);
}

/** The name of the model that the server has. */
export async function modelName() {
  if (!model) {
    const listed = await (await send("v1/models")).json();
    model = listed.data[0].id;
  }
  return model;
}

/** What each layer attends to: `{side, layers: [{layer, map, name}]}`; name: where the layers have any. */
export async function attention(image, signal) {
  return (await post("igva/attention", { image }, signal)).json();
}

/**
 * One question about one picture, streamed.
 *
 * @param {{image: string, question: string, signal: AbortSignal}} asked - image: a data URL
 * @param {{mixture: (groups: number[][], names: string[] | null, weights: number[] | null) => void,
 *   text: (piece: string) => void}} hears - names: of the groups, where the layers have any
 * @returns {Promise<string>} why the answer ended: "stop", or "length" where it was cut
 */
export async function ask({ image, question, signal }, hears) {
  const content = [
    { type: "image_url", image_url: { url: image } },
    { type: "text", text: question },
  ];
  // Temperature 0: a comparison should show what the question changed, not what chance did.
  const body = { model: await modelName(), messages: [{ role: "user", content }], stream: true, temperature: 0 };
  const response = await post("v1/chat/completions", body, signal);
  let reason = "stop";
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    const mixed = chunk.igva;
    if (mixed) hears.mixture(mixed.layer_groups, mixed.layer_names ?? null, mixed.layer_weights);
    const choice = chunk.choices[0];
    if (choice?.delta.content) hears.text(choice.delta.content);
    reason = choice?.finish_reason ?? reason;
  }
  return reason;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection ended before the answer did. Ask again.");
    const parts = (held + value).split(/\r?\n\r?\n/);
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: ?/, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function post(path, body, signal) {
  const headers = { "content-type": "application/json" };
  return send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function send(path, options = {}) {
  for (;;) {
    const bearer = key.stored();
    const response = await reach(path, options, bearer);
    if (response.status !== 401) return checked(response);
    if (!(await key.askFor(bearer))) throw new Error("This server asks for an API key. Ask again to give it.");
  }
}

async function reach(path, options, bearer) {
  const headers = { ...options.headers, ...(bearer && { authorization: `Bearer ${bearer}` }) };
  // With a key of ours no other credentials, or the browser would ask for its own kind as well.
  const credentials = bearer ? "omit" : "same-origin";
  try {
    return await fetch(address(path), { ...options, headers, credentials });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
}

async function checked(response) {
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Error(told?.error?.message ?? `The server answered with error ${response.status}.`);
}
