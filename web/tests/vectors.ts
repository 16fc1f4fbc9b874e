/** The committed conformance vectors that `web/vectors/make.py` writes. */

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { CROP_SIZE, type CanonicalCrop } from "../src/alignment";
import type { FivePoints, Picture, Region } from "../src/geometry";
import type { Receipt } from "../src/receipt";
import { loadVeil, type VeilNetwork } from "../src/veil";

const FOLDER = new URL("../vectors/", import.meta.url);

interface Vectors {
  pictures: Record<string, { width: number; height: number }>;
  alignments: { crop: string; picture: string; landmarks: FivePoints; crop_landmarks: FivePoints; outside: number }[];
  refused: { why: string; picture: string; landmarks: FivePoints }[];
  eye_regions: { landmarks: FivePoints; region: Region | null }[];
  anonymizations: { crop: string; approach: string; key: string; receipt: Receipt; sha256?: string }[];
  draws: { key: string; bounds: number[]; draws: number[] }[];
  distributions: {
    crop: string;
    approach: string;
    key: string;
    model: string;
    sha256: string;
    temperature: number;
    years: number[];
  }[];
}

export const vectors = JSON.parse(readFileSync(new URL("vectors.json", FOLDER), "utf8")) as Vectors;

/** RGB bytes by name. */
export function rgb(name: string): Uint8ClampedArray {
  return new Uint8ClampedArray(gunzipSync(readFileSync(new URL(`pixels/${name}.gz`, FOLDER))));
}

/** A picture as a canvas would give it. */
export function picture(name: string): Picture {
  const { width, height } = vectors.pictures[name];
  const pixels = rgb(name);
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
  return { data, width, height };
}

/** The crop that Python made. */
export function crop(name: string): CanonicalCrop {
  const { crop_landmarks: landmarks, outside } = vectors.alignments.find((entry) => entry.crop === name)!;
  return { pixels: rgb(name), size: CROP_SIZE, landmarks, outside };
}

export function key(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

const VEIL = new URL("../../weights/research/src/ageveil_weights_research/veil.onnx", import.meta.url);

/** The network of the approach "veil"; null where its weights are not there. */
export async function installedVeil(): Promise<VeilNetwork | null> {
  if (!existsSync(VEIL)) return null;
  const model = new Uint8Array(readFileSync(VEIL));
  return loadVeil(model, createHash("sha256").update(model).digest("hex"));
}

/** Largest difference of two byte arrays of one length. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`lengths differ: ${a.length} and ${b.length}`);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}
