/**
 * Hide a face: the approaches of `ageveil.anonymization` that a browser offers, and their receipts.
 *
 * Mosaic, mask and grid give the very bytes that Python gives, blur is within one grey level. Noisy cells ("dp-pix")
 * give the same bytes from the same draws but where a logarithm that this platform rounds otherwise in its last bit
 * stands right at a step. A veil is the same unless a level of its network does. Ciphers are left out: they are undone
 * by whoever has the key.
 */

import type { CanonicalCrop } from "./alignment";
import { ChaChaDraws, type Draws } from "./draws";
import { middle, roundHalfUp, UnusableFaceError, type FivePoints, type Region } from "./geometry";
import { RECEIPT_VERSION, type Receipt } from "./receipt";
import { ModelError } from "./runtime";
import { VEIL_LEVELS, veilShade, type VeilNetwork } from "./veil";

/** Sizes of the approaches are stated at this side and scale with the crop. */
const REFERENCE_SIZE = 200;
/** The blurred face box, as fractions of the crop. */
const FACE_BOX = [0.06, 0.04, 0.95, 0.94] as const;
/** How far the eye region reaches beyond the outermost eye corners, in distances between the eye centres. */
const [BESIDE_CORNERS, ABOVE_CORNERS, BELOW_CORNERS] = [0.415, 0.545, 0.16];

/** The eye corners of the mean face in a crop, as fractions of its side, from left to right. */
const [MEAN_CORNERS, MEAN_HEIGHT] = [[0.23, 0.364, 0.617, 0.751], 0.299] as const;
/** The noise of "dp-pix" hides a change of any so many pixels, at this budget for each picture that leaves. */
const [DP_PIXELS, DP_EPSILON] = [16, 0.25];

type Sizes = Readonly<Record<string, number>>;

/** What an approach may need beside the crop. */
interface Means {
  draws(): Draws;
  readonly veil: VeilNetwork | null;
}

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
  /** What a visitor reads before the result is sent. */
  readonly leaves: string;
  /** Sizes in pixels of a crop of that side; they stand in the receipt. */
  sizes(size: number): Sizes;
  /** Change `pixels` (RGB, `size` pixels a row) in place, within the region. */
  apply(pixels: Uint8ClampedArray, size: number, region: Region, sizes: Sizes, means: Means): void | Promise<void>;
}

const LEAVES = "Exactly this leaves your device.";

export const APPROACHES: Readonly<Record<string, Approach>> = {
  mosaic: {
    hides: "eyes",
    summary: "Your eyes and brows are covered by coarse squares.",
    leaves: LEAVES,
    sizes: (size) => ({ cell: Math.max(2, scaled(size, 10)) }),
    apply: (pixels, size, region, sizes, means) => mosaic(pixels, size, region, sizes.cell, means.draws()),
  },
  mask: {
    hides: "eyes",
    summary: "Your eyes and brows are blacked out.",
    leaves: LEAVES,
    sizes: () => ({}),
    apply: mask,
  },
  blur: {
    hides: "face",
    summary: "Your whole face is blurred.",
    leaves: LEAVES,
    sizes: (size) => ({ radius: scaled(size, 12), sigma: (4.1 * size) / REFERENCE_SIZE }),
    apply: (pixels, size, region, sizes) => blur(pixels, size, region, sizes.radius, sizes.sigma),
  },
  grid: {
    hides: "all",
    summary: "Your whole picture is covered by coarse squares.",
    leaves: LEAVES,
    sizes: (size) => ({ cell: Math.max(2, scaled(size, 25)) }),
    apply: (pixels, size, region, sizes, means) => mosaic(pixels, size, region, sizes.cell, means.draws()),
  },
  "dp-pix": {
    hides: "all",
    summary: "Your whole picture is covered by coarse grey squares with noise.",
    leaves: LEAVES,
    sizes: (size) => ({ cell: Math.max(2, scaled(size, 25)), pixels: DP_PIXELS, epsilon: DP_EPSILON }),
    apply: (pixels, size, region, sizes, means) => noisyCells(pixels, size, region, sizes, means.draws()),
  },
  veil: {
    hides: "all",
    summary: "Two shades of grey take the place of your whole picture. How old you look makes them.",
    leaves: "Of your picture this leaves your device, one byte: two shades of grey.",
    sizes: () => ({ levels: VEIL_LEVELS }),
    apply: (pixels, size, region, _, means) => veil(pixels, size, region, network(means)),
  },
};

/**
 * Anonymize a canonical crop. The crop is not changed.
 *
 * @param means.draws By default from a fresh cryptographic key; give them in tests only.
 * @param means.veil The network of the approach "veil".
 * @throws RangeError unknown approach.
 * @throws UnusableFaceError the eyes lie outside the crop.
 * @throws ModelError the approach is a network, and there is none or it fails.
 */
export async function anonymize(
  crop: CanonicalCrop,
  approach: string,
  { draws, veil = null }: { draws?: Draws; veil?: VeilNetwork | null } = {},
): Promise<AnonymizedFace> {
  const entry = getApproach(approach);
  const { size } = crop;
  const seen = eyeRegion(crop.landmarks, size);
  // What the crop no longer shows, its receipt must not tell.
  const eyes = entry.hides === "all" ? meanEyeRegion(size) : seen;
  const region: Region =
    entry.hides === "eyes" ? eyes : entry.hides === "face" ? faceRegion(size) : [0, 0, size, size];
  const sizes = entry.sizes(size);
  const means = { draws: () => draws ?? new ChaChaDraws(), veil };
  const pixels = crop.pixels.slice();
  await entry.apply(pixels, size, region, sizes, means);
  const parameters = approach === "veil" ? { ...sizes, filter: network(means).sha256.slice(0, 16) } : sizes;
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

/** The eye region of the mean face in a canonical crop, for approaches that leave no eyes to point at. */
export function meanEyeRegion(size: number): Region {
  const [a, b, c, d] = MEAN_CORNERS.map((x) => [size * x, size * MEAN_HEIGHT] as const);
  return eyeRegion([d, c, a, b, d], size);
}

function network({ veil }: Means): VeilNetwork {
  if (veil === null) throw new ModelError("the approach veil needs its network");
  return veil;
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

/** Grey cells of the mean of their pixels and two-sided geometric noise; see `noisy_cells` in Python. */
function noisyCells(
  pixels: Uint8ClampedArray,
  size: number,
  [x0, y0, x1, y1]: Region,
  { cell, pixels: hidden, epsilon }: Sizes,
  draws: Draws,
): void {
  const count = Math.ceil((x1 - x0) / cell) * Math.ceil((y1 - y0) / cell);
  const scale = (255 * hidden) / epsilon;
  const [first, second] = [geometric(scale, count, draws), geometric(scale, count, draws)];
  let index = 0;
  for (let top = y0; top < y1; top += cell) {
    for (let left = x0; left < x1; left += cell, index++) {
      const [right, bottom] = [Math.min(left + cell, x1), Math.min(top + cell, y1)];
      const sum = greySum(pixels, size, [left, top, right, bottom]) + first[index] - second[index];
      const mean = sum / ((right - left) * (bottom - top));
      // A clamped array rounds half to even, as Python's side does.
      fill(pixels, size, [left, top, right, bottom], mean, mean, mean);
    }
  }
}

/** Whole numbers from 0, each k or more with probability exp(-k / scale): by the inverse distribution. */
function geometric(scale: number, count: number, draws: Draws): Float64Array {
  const [high, low] = [0, 1].map(() => Float64Array.from({ length: count }, () => draws.integer(2 ** 32)));
  return high.map((value, i) => Math.floor(Math.log((value * 2 ** 32 + (low[i] + 1)) / 2 ** 64) * -scale));
}

/** The sum of the grey values, each rounded as OpenCV does. */
function greySum(pixels: Uint8ClampedArray, size: number, [x0, y0, x1, y1]: Region): number {
  let sum = 0;
  for (let y = y0; y < y1; y++) {
    for (let at = 3 * (y * size + x0); at < 3 * (y * size + x1); at += 3) {
      sum += (9798 * pixels[at] + 19235 * pixels[at + 1] + 3735 * pixels[at + 2] + 2 ** 14) >> 15;
    }
  }
  return sum;
}

/** Two grey halves that the network chose. */
async function veil(
  pixels: Uint8ClampedArray,
  size: number,
  [x0, y0, x1, y1]: Region,
  painter: VeilNetwork,
): Promise<void> {
  const [left, right] = (await painter.look(pixels, size)).map(veilShade);
  const middle = x0 + Math.floor((x1 - x0) / 2);
  fill(pixels, size, [x0, y0, middle, y1], left, left, left);
  fill(pixels, size, [middle, y0, x1, y1], right, right, right);
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
