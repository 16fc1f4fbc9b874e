/**
 * Hide a face: the approaches of `ageveil.anonymization` that a browser offers, and their receipts.
 *
 * Mosaic and mask give the very bytes that Python gives, blur is within one grey level. Ciphers are left out: they
 * are undone by whoever has the key.
 */

import type { CanonicalCrop } from "./alignment";
import { ChaChaDraws, type Draws } from "./draws";
import { middle, roundHalfUp, UnusableFaceError, type FivePoints, type Region } from "./geometry";
import { RECEIPT_VERSION, type Parameters, type Receipt } from "./receipt";

/** Sizes of the approaches are stated at this side and scale with the crop. */
const REFERENCE_SIZE = 200;
/** The blurred face box, as fractions of the crop. */
const FACE_BOX = [0.06, 0.04, 0.95, 0.94] as const;
/** How far the eye region reaches beyond the outermost eye corners, in distances between the eye centres. */
const [BESIDE_CORNERS, ABOVE_CORNERS, BELOW_CORNERS] = [0.415, 0.545, 0.16];

/** An anonymized canonical crop: all that ever leaves the page or reaches the estimator. */
export interface AnonymizedFace {
  /** RGB, row by row, size * size * 3 bytes. */
  readonly pixels: Uint8ClampedArray;
  readonly receipt: Receipt;
}

/** An entry of `APPROACHES`. */
export interface Approach {
  /** "eyes": the eye region; "face": the face box; "all": the whole crop. */
  readonly hides: "eyes" | "face" | "all";
  /** What a visitor reads about it. */
  readonly summary: string;
  /** Sizes in pixels of a crop of that side; they stand in the receipt. */
  sizes(size: number): Parameters;
  /** Change `pixels` (RGB, `size` pixels a row) in place, within the region. */
  apply(pixels: Uint8ClampedArray, size: number, region: Region, sizes: Parameters, draws: () => Draws): void;
}

export const APPROACHES: Readonly<Record<string, Approach>> = {
  mosaic: {
    hides: "eyes",
    summary: "Your eyes and brows are covered by coarse squares.",
    sizes: (size) => ({ cell: Math.max(2, scaled(size, 10)) }),
    apply: (pixels, size, region, sizes, draws) => mosaic(pixels, size, region, sizes.cell, draws()),
  },
  mask: {
    hides: "eyes",
    summary: "Your eyes and brows are blacked out.",
    sizes: () => ({}),
    apply: mask,
  },
  blur: {
    hides: "face",
    summary: "Your whole face is blurred.",
    sizes: (size) => ({ radius: scaled(size, 12), sigma: (4.1 * size) / REFERENCE_SIZE }),
    apply: (pixels, size, region, sizes) => blur(pixels, size, region, sizes.radius, sizes.sigma),
  },
};

/**
 * Anonymize a canonical crop. The crop is not changed.
 *
 * @param draws By default from a fresh cryptographic key; give them in tests only.
 * @throws RangeError unknown approach.
 * @throws UnusableFaceError the eyes lie outside the crop.
 */
export function anonymize(crop: CanonicalCrop, approach: string, draws?: Draws): AnonymizedFace {
  const entry = getApproach(approach);
  const { size } = crop;
  const eyes = eyeRegion(crop.landmarks, size);
  const region: Region =
    entry.hides === "eyes" ? eyes : entry.hides === "face" ? faceRegion(size) : [0, 0, size, size];
  const parameters = entry.sizes(size);
  const pixels = crop.pixels.slice();
  entry.apply(pixels, size, region, parameters, () => draws ?? new ChaChaDraws());
  const receipt: Receipt = {
    version: RECEIPT_VERSION,
    approach,
    parameters,
    region,
    eye_region: eyes,
    size: [size, size],
  };
  return { pixels, receipt };
}

/** The approach of that name. @throws RangeError there is none; nothing is ever left bare instead. */
export function getApproach(name: string): Approach {
  if (!Object.hasOwn(APPROACHES, name)) {
    throw new RangeError(`unknown approach "${name}"; choose one of ${Object.keys(APPROACHES).join(", ")}`);
  }
  return APPROACHES[name];
}

/**
 * The rectangle around both eyes and eyebrows, predicted from the eye corners.
 *
 * @throws UnusableFaceError an eye corner lies outside the crop.
 */
export function eyeRegion(landmarks: FivePoints, size: number): Region {
  const corners = landmarks.slice(0, 4);
  const [xs, ys] = [corners.map((point) => point[0]), corners.map((point) => point[1])];
  const [left, top, right, bottom] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  // The negated comparison refuses NaN as well.
  if (!(left >= 0 && top >= 0 && right <= size - 1 && bottom <= size - 1)) {
    throw new UnusableFaceError("the landmarks lie outside the crop: the eye region is not known");
  }
  const one = middle(landmarks[0], landmarks[1]);
  const other = middle(landmarks[2], landmarks[3]);
  const distance = Math.sqrt((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2);
  // Landmarks are pixel centres: the region holds every pixel that the rectangle touches.
  const region: Region = [
    Math.max(0, Math.floor(left - distance * BESIDE_CORNERS + 0.5)),
    Math.max(0, Math.floor(top - distance * ABOVE_CORNERS + 0.5)),
    Math.min(size, Math.ceil(right + distance * BESIDE_CORNERS + 0.5)),
    Math.min(size, Math.ceil(bottom + distance * BELOW_CORNERS + 0.5)),
  ];
  if (region[2] <= region[0] || region[3] <= region[1]) {
    throw new UnusableFaceError("the eye region has no area in the crop");
  }
  return region;
}

/** The face box of a canonical crop, fixed: 6 to 95 % across and 4 to 94 % down. */
export function faceRegion(size: number): Region {
  const [x0, y0, x1, y1] = FACE_BOX;
  return [roundHalfUp(x0 * size), roundHalfUp(y0 * size), roundHalfUp(x1 * size), roundHalfUp(y1 * size)];
}

function scaled(size: number, atReference: number): number {
  return Math.max(1, roundHalfUp((atReference * size) / REFERENCE_SIZE));
}

/** Cells that each repeat one of their own pixels, drawn row by row; the last row and column may be smaller. */
function mosaic(pixels: Uint8ClampedArray, size: number, region: Region, cell: number, draws: Draws): void {
  const [x0, y0, x1, y1] = region;
  for (let top = y0; top < y1; top += cell) {
    const height = Math.min(cell, y1 - top);
    for (let left = x0; left < x1; left += cell) {
      const width = Math.min(cell, x1 - left);
      const draw = draws.integer(height * width);
      const kept = 3 * ((top + Math.floor(draw / width)) * size + left + (draw % width));
      const [red, green, blue] = [pixels[kept], pixels[kept + 1], pixels[kept + 2]];
      fill(pixels, size, [left, top, left + width, top + height], red, green, blue);
    }
  }
}

function mask(pixels: Uint8ClampedArray, size: number, region: Region): void {
  fill(pixels, size, region, 0, 0, 0);
}

function fill(
  pixels: Uint8ClampedArray,
  size: number,
  [x0, y0, x1, y1]: Region,
  red: number,
  green: number,
  blue: number,
): void {
  for (let y = y0; y < y1; y++) {
    for (let at = 3 * (y * size + x0); at < 3 * (y * size + x1); at += 3) {
      pixels[at] = red;
      pixels[at + 1] = green;
      pixels[at + 2] = blue;
    }
  }
}

/**
 * A Gaussian of 2 radius + 1 pixels across; the crop's borders are reflected without repeating the edge. The kernel is
 * symmetric, so two pixels share a product.
 */
function blur(pixels: Uint8ClampedArray, size: number, region: Region, radius: number, sigma: number): void {
  const [x0, y0, x1, y1] = region;
  const taps = gaussian(radius, sigma);
  const width = 3 * (x1 - x0);
  const [top, bottom] = [Math.max(0, y0 - radius), Math.min(size, y1 + radius)];
  const across = new Float64Array((bottom - top) * width);
  const row = new Float64Array(width + 6 * radius);
  for (let y = top; y < bottom; y++) {
    for (let x = x0 - radius, to = 0; x < x1 + radius; x++, to += 3) {
      const at = 3 * (y * size + reflected(x, size));
      row[to] = pixels[at];
      row[to + 1] = pixels[at + 1];
      row[to + 2] = pixels[at + 2];
    }
    blurRow(row, taps, across.subarray((y - top) * width, (y - top + 1) * width));
  }
  const sums = new Float64Array(width);
  for (let y = y0; y < y1; y++) {
    sums.set(across.subarray((y - top) * width, (y - top + 1) * width));
    for (let i = 0; i < width; i++) sums[i] *= taps[0];
    for (let k = 1; k <= radius; k++) {
      const above = (reflected(y - k, size) - top) * width;
      const below = (reflected(y + k, size) - top) * width;
      const tap = taps[k];
      for (let i = 0; i < width; i++) sums[i] += tap * (across[above + i] + across[below + i]);
    }
    pixels.set(sums, 3 * (y * size + x0)); // a clamped array rounds half to even, as Python's side does
  }
}

/** @param row 3 channels interleaved; it reaches beyond `out` by the radius on both sides. */
function blurRow(row: Float64Array, taps: Float64Array, out: Float64Array): void {
  const middle = 3 * (taps.length - 1);
  for (let i = 0; i < out.length; i++) {
    let sum = taps[0] * row[i + middle];
    for (let k = 1, left = i + middle - 3, right = i + middle + 3; k < taps.length; k++, left -= 3, right += 3) {
      sum += taps[k] * (row[left] + row[right]);
    }
    out[i] = sum;
  }
}

/** One half of the kernel, its middle first; the whole sums to 1. */
function gaussian(radius: number, sigma: number): Float64Array {
  const taps = Float64Array.from({ length: radius + 1 }, (_, i) => Math.exp(-(i * i) / (2 * sigma * sigma)));
  const sum = 2 * taps.reduce((total, tap) => total + tap, 0) - taps[0];
  return taps.map((tap) => tap / sum);
}

function reflected(position: number, size: number): number {
  if (position < 0) return -position;
  return position < size ? position : 2 * size - 2 - position;
}
