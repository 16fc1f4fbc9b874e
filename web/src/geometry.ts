/**
 * Points, rectangles and pictures, with the conventions of `ageveil.types`: the centre of the first pixel lies at
 * (0, 0), rectangles are half open.
 */

export type Point = readonly [x: number, y: number];

/** xyxy in whole pixels, half open. */
export type Region = readonly [x0: number, y0: number, x1: number, y1: number];

/** A picture as a canvas gives it: RGBA, row by row; alpha is not read. `ImageData` is one. */
export interface Picture {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/**
 * dlib's five points: image-right eye: outer, inner corner; image-left eye: outer, inner corner; nose base.
 */
export type FivePoints = readonly [Point, Point, Point, Point, Point];

/** A face was found that cannot be used: half outside, turned too far, eyes outside the crop. */
export class UnusableFaceError extends Error {
  override readonly name = "UnusableFaceError";
}

/** Round half up, as Python's side does. */
export function roundHalfUp(value: number): number {
  return Math.floor(value + 0.5);
}

export function middle(a: Point, b: Point): Point {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}
