import { describe, expect, it } from "vitest";
import { align, cropTransform, CROP_SIZE } from "../src/alignment";
import { UnusableFaceError, type FivePoints } from "../src/geometry";
import { largestDifference, picture, rgb, vectors } from "./vectors";

describe("align", () => {
  it.each(vectors.alignments)("makes Python's crop within one grey level: $crop", (entry) => {
    const source = picture(entry.picture);
    const before = source.data.slice();
    const crop = align(source, entry.landmarks);
    expect(largestDifference(crop.pixels, rgb(entry.crop))).toBeLessThanOrEqual(1);
    expect(crop.outside).toBe(entry.outside);
    expect(largestDifference(crop.landmarks.flat(), entry.crop_landmarks.flat())).toBeLessThan(1e-6);
    expect(largestDifference(source.data, before)).toBe(0);
  });

  it.each(vectors.refused)("refuses a face: $why", ({ picture: name, landmarks }) => {
    expect(() => align(picture(name), landmarks)).toThrow(UnusableFaceError);
  });

  it("is the identity where the eyes are in place already", () => {
    const size = CROP_SIZE;
    const data = Uint8ClampedArray.from({ length: 4 * size * size }, (_, i) => (i * i) % 251);
    const [left, right, y] = [0.297 * size, 0.684 * size, 0.299 * size];
    const landmarks: FivePoints = [[right, y], [right, y], [left, y], [left, y], [112, 110]];
    const crop = align({ data, width: size, height: size }, landmarks);
    const expected = data.filter((_, i) => i % 4 !== 3);
    expect(largestDifference(crop.pixels, expected)).toBeLessThanOrEqual(1);
  });

  it("refuses landmarks that are no numbers", () => {
    const nowhere: FivePoints = [[NaN, 0], [1, 0], [2, 0], [3, 0], [4, 0]];
    expect(() => cropTransform(nowhere)).toThrow(UnusableFaceError);
  });
});
