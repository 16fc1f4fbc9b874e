/** Networks that the service's own origin serves: fetched, checked and opened. */

import type { InferenceSession } from "onnxruntime-web/wasm";

/** A network does not arrive, is another one than it should be, or says what it must not. */
export class ModelError extends Error {
  override readonly name = "ModelError";
}

/** Fetch a network's file and compare it with its SHA-256. @throws ModelError */
export async function fetchModel(url: string, sha256: string): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await fetch(url, { credentials: "omit" });
  if (!answer.ok) throw new ModelError(`the model does not arrive: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== sha256) throw new ModelError("the model is another one than the check names");
  return bytes;
}

/** Open an ONNX file. The caller releases the session. */
export async function openSession(model: Uint8Array): Promise<InferenceSession> {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.numThreads = 1; // more need isolation from other origins, which an embedded page has not
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/**
 * Run a network on crops of one size.
 *
 * @param crops RGB, crop after crop, shape (count, size, size, 3).
 * @param eyeMasks 1 inside the eye regions, shape (count, size, size).
 * @returns The network's outputs in order, row by row.
 */
export async function run(
  session: InferenceSession,
  size: number,
  crops: Uint8Array,
  eyeMasks: Uint8Array,
): Promise<Float32Array[]> {
  const { Tensor } = await import("onnxruntime-web/wasm");
  const shape = [eyeMasks.length / size ** 2, size, size];
  const output = await session.run({
    crops: new Tensor("uint8", crops, [...shape, 3]),
    eye_mask: new Tensor("bool", eyeMasks, shape),
  });
  return session.outputNames.map((name) => output[name].data as Float32Array);
}
