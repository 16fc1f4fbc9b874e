/** Warp a face upright into the canonical crop, within one grey level of `ageveil.alignment`. */

import { middle, UnusableFaceError, type FivePoints, type Picture, type Point } from "./geometry";

export const CROP_SIZE = 224;
/** Eye centres in the crop, as fractions of its side, left and right in the picture. */
const LEFT_EYE: Point = [0.297, 0.299];
const RIGHT_EYE: Point = [0.684, 0.299];
/** Largest share of the crop that may lie outside the picture. */
export const MAX_OUTSIDE = 0.2;

/** x' = a x - b y + c, y' = b x + a y + d. */
export interface Similarity {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

/** A face warped upright, still bare: RGB, row by row, `size` * `size` * 3 bytes. */
export interface CanonicalCrop {
  readonly pixels: Uint8ClampedArray;
  readonly size: number;
  /** In pixels of the crop. */
  readonly landmarks: FivePoints;
  /** Share of the crop's pixels that lie outside the picture (black). */
  readonly outside: number;
}

/**
 * The similarity that takes the crop's pixels to the picture's.
 *
 * @throws UnusableFaceError the eye centres are one point.
 */
export function cropTransform(landmarks: FivePoints, size: number = CROP_SIZE): Similarity {
  const right = middle(landmarks[0], landmarks[1]);
  const left = middle(landmarks[2], landmarks[3]);
  const [dx, dy] = [right[0] - left[0], right[1] - left[1]];
  if (!(Math.hypot(dx, dy) >= 1e-6)) {
    throw new UnusableFaceError("both eyes of the face lie on one point: no upright crop");
  }
  // Both targets are on one row, so the turn between them is a division by a real number.
  const span = RIGHT_EYE[0] * size - LEFT_EYE[0] * size;
  const [a, b] = [dx / span, dy / span];
  const [x, y] = [LEFT_EYE[0] * size, LEFT_EYE[1] * size];
  return { a, b, c: left[0] - (a * x - b * y), d: left[1] - (b * x + a * y) };
}

/**
 * Warp a face into the canonical crop, bilinearly; pixels from outside the picture are black.
 *
 * @throws UnusableFaceError more than `MAX_OUTSIDE` of the crop lies outside the picture.
 */
export function align(picture: Picture, landmarks: FivePoints, size: number = CROP_SIZE): CanonicalCrop {
  const toPicture = cropTransform(landmarks, size);
  const outside = shareOutside(picture, toPicture, size);
  if (outside > MAX_OUTSIDE) {
    throw new UnusableFaceError("too much of the face lies outside the picture");
  }
  const pixels = warp(picture, toPicture, size);
  const moved = landmarks.map((point) => applyInverse(toPicture, point)) as unknown as FivePoints;
  return { pixels, size, landmarks: moved, outside };
}

function applyInverse({ a, b, c, d }: Similarity, [x, y]: Point): Point {
  const scale = a * a + b * b;
  return [(a * (x - c) + b * (y - d)) / scale, (a * (y - d) - b * (x - c)) / scale];
}

function shareOutside({ width, height }: Picture, { a, b, c, d }: Similarity, size: number): number {
  const isOutside = (column: number, row: number): boolean => {
    const x = a * column - b * row + c;
    const y = b * column + a * row + d;
    return x < 0 || x > width - 1 || y < 0 || y > height - 1;
  };
  const last = size - 1;
  // A picture is convex: with its corners, the whole crop lies within.
  if (!isOutside(0, 0) && !isOutside(last, 0) && !isOutside(0, last) && !isOutside(last, last)) return 0;
  let count = 0;
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) if (isOutside(column, row)) count++;
  }
  return count / (size * size);
}

function warp({ data, width, height }: Picture, { a, b, c, d }: Similarity, size: number): Uint8ClampedArray {
  const pixels = new Uint8ClampedArray(size * size * 3);
  const stride = 4 * width;
  for (let row = 0, to = 0; row < size; row++) {
    for (let column = 0; column < size; column++, to += 3) {
      const x = a * column - b * row + c;
      const y = b * column + a * row + d;
      const left = Math.floor(x);
      const top = Math.floor(y);
      if (left < -1 || left >= width || top < -1 || top >= height) continue;
      const right = x - left;
      const down = y - top;
      // A neighbour outside the picture is black: it gets no weight, and one inside is read in its place.
      const inLeft = left >= 0 ? 1 - right : 0;
      const inRight = left + 1 < width ? right : 0;
      const inTop = top >= 0 ? 1 - down : 0;
      const inBottom = top + 1 < height ? down : 0;
      const at = (top >= 0 ? top : 0) * stride + 4 * (left >= 0 ? left : 0);
      const across = left >= 0 && left + 1 < width ? 4 : 0;
      const below = at + (top >= 0 && top + 1 < height ? stride : 0);
      for (let channel = 0; channel < 3; channel++) {
        const above = inLeft * data[at + channel] + inRight * data[at + across + channel];
        const under = inLeft * data[below + channel] + inRight * data[below + across + channel];
        pixels[to + channel] = inTop * above + inBottom * under;
      }
    }
  }
  return pixels;
}
