/** Run the service's own model on the device, on anonymized faces and nothing else. */

import type { AnonymizedFace } from "./anonymization";
import { CROP_SIZE } from "./alignment";
import { applyTemperature } from "./decision";

/** The model does not arrive, or is not the one that the check names. */
export class ModelError extends Error {
  override readonly name = "ModelError";
}

/** Fetch a model's file and compare it with its SHA-256. @throws ModelError */
export async function fetchModel(url: string, sha256: string): Promise<Uint8Array<ArrayBuffer>> {
  const answer = await fetch(url, { credentials: "omit" });
  if (!answer.ok) throw new ModelError(`the model does not arrive: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== sha256) throw new ModelError("the model is another one than the check names");
  return bytes;
}

/**
 * How probable each year is, one row of 101 for each face.
 *
 * @param model The ONNX file: inputs `crops` (N, 224, 224, 3) and `eye_mask` (N, 224, 224).
 * @param temperature That of the approach.
 */
export async function estimate(
  faces: readonly AnonymizedFace[],
  model: Uint8Array,
  temperature: number,
): Promise<Float64Array[]> {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.numThreads = 1; // more need isolation from other origins, which an embedded page has not
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  try {
    const side = [faces.length, CROP_SIZE, CROP_SIZE];
    const crops = new Uint8Array(faces.length * CROP_SIZE ** 2 * 3);
    const masks = new Uint8Array(faces.length * CROP_SIZE ** 2);
    faces.forEach((face, i) => {
      crops.set(face.pixels, i * face.pixels.length);
      masks.set(eyeMask(face), i * CROP_SIZE ** 2);
    });
    const output = await session.run({
      crops: new ort.Tensor("uint8", crops, [...side, 3]),
      eye_mask: new ort.Tensor("bool", masks, side),
    });
    const rows = output[session.outputNames[0]].data as Float32Array;
    const width = rows.length / faces.length;
    return faces.map((_, i) => applyTemperature(rows.subarray(i * width, (i + 1) * width), temperature));
  } finally {
    await session.release();
  }
}

/** 1 inside the eye region. */
function eyeMask({ receipt }: AnonymizedFace): Uint8Array {
  const mask = new Uint8Array(CROP_SIZE ** 2);
  const [x0, y0, x1, y1] = receipt.eye_region;
  for (let y = y0; y < y1; y++) mask.fill(1, y * CROP_SIZE + x0, y * CROP_SIZE + x1);
  return mask;
}
