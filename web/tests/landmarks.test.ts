import { describe, expect, it } from "vitest";
import { fivePoints, headTurn, type Mesh } from "../src/landmarks";

/** A mesh of zeros with some points set. */
function mesh(points: Record<number, readonly [number, number, number?]>): Mesh {
  return Array.from({ length: 468 }, (_, i) => points[i] ?? ([0, 0, 0] as const));
}

// Upright: the eye centres lie at (30, 50) and (70, 50).
const EYES = { 33: [20, 50], 133: [40, 50], 362: [60, 50], 263: [80, 50], 2: [50, 80] } as const;

describe("fivePoints", () => {
  it("takes corners and nose in dlib's order, without depth", () => {
    expect(fivePoints(mesh({ ...EYES, 2: [50, 80, 9] }))).toEqual([[80, 50], [60, 50], [20, 50], [40, 50], [50, 80]]);
  });

  it("refuses a mesh with too few points", () => {
    expect(() => fivePoints(mesh(EYES).slice(0, 467))).toThrow(RangeError);
  });
});

describe("headTurn", () => {
  it.each([
    [50, 0], // straight ahead
    [60, 0.25], // a quarter of the 40 pixels between the eyes
    [34, -0.4],
  ])("with the nose at %s is %s", (x, expected) => {
    expect(headTurn(mesh({ ...EYES, 1: [x, 65] }))).toBeCloseTo(expected, 12);
  });

  it("does not change where the head is tilted", () => {
    // The same face, turned by 90 degrees: (x, y) becomes (-y, x).
    const upright: Record<number, readonly [number, number]> = { ...EYES, 1: [60, 65] };
    const tilted = Object.fromEntries(Object.entries(upright).map(([i, [x, y]]) => [i, [-y, x] as const]));
    expect(headTurn(mesh(tilted))).toBeCloseTo(0.25, 12);
  });
});
