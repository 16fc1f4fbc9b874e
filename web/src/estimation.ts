/** Run the service's own model on the device, on anonymized faces and nothing else. */

import type { AnonymizedFace } from "./anonymization";
import { CROP_SIZE } from "./alignment";
import { applyTemperature } from "./decision";
import { openSession, run } from "./runtime";

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
  const session = await openSession(model);
  try {
    const crops = new Uint8Array(faces.length * CROP_SIZE ** 2 * 3);
    const masks = new Uint8Array(faces.length * CROP_SIZE ** 2);
    faces.forEach((face, i) => {
      crops.set(face.pixels, i * face.pixels.length);
      masks.set(eyeMask(face), i * CROP_SIZE ** 2);
    });
    const [rows] = await run(session, CROP_SIZE, crops, masks);
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
