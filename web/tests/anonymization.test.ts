import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { anonymize, APPROACHES, eyeRegion, faceRegion } from "../src/anonymization";
import { ChaChaDraws } from "../src/draws";
import { UnusableFaceError } from "../src/geometry";
import { crop, key, largestDifference, rgb, vectors } from "./vectors";

describe("anonymize", () => {
  it.each(vectors.anonymizations)("makes Python's pixels and receipt: $approach of $crop", (entry) => {
    const source = crop(entry.crop);
    const before = source.pixels.slice();
    const face = anonymize(source, entry.approach, new ChaChaDraws(key(entry.key)));
    if (entry.sha256 === undefined) {
      expect(largestDifference(face.pixels, rgb(`${entry.crop}-${entry.approach}`))).toBeLessThanOrEqual(1);
    } else {
      expect(createHash("sha256").update(face.pixels).digest("hex")).toBe(entry.sha256);
    }
    expect(JSON.parse(JSON.stringify(face.receipt))).toEqual(entry.receipt);
    expect(largestDifference(source.pixels, before)).toBe(0);
  });

  it("has vectors for every approach", () => {
    expect(new Set(vectors.anonymizations.map((entry) => entry.approach))).toEqual(new Set(Object.keys(APPROACHES)));
  });

  it.each(Object.keys(APPROACHES))("leaves everything outside the region as it was: %s", (approach) => {
    const source = crop("astronaut-upright");
    const { pixels, receipt } = anonymize(source, approach);
    const [x0, y0, x1, y1] = receipt.region;
    let [changed, altered] = [0, false];
    pixels.forEach((value, i) => {
      const [x, y] = [Math.floor(i / 3) % source.size, Math.floor(i / 3 / source.size)];
      const inside = x >= x0 && x < x1 && y >= y0 && y < y1;
      if (!inside) altered ||= value !== source.pixels[i];
      else if (value !== source.pixels[i]) changed++;
    });
    expect(altered).toBe(false);
    expect(changed).toBeGreaterThan(0.8 * 3 * (x1 - x0) * (y1 - y0));
  });

  it("draws afresh each time", () => {
    const source = crop("astronaut-upright");
    const [one, other] = [anonymize(source, "mosaic"), anonymize(source, "mosaic")];
    expect(largestDifference(one.pixels, other.pixels)).toBeGreaterThan(0);
  });

  it.each(["original", "none", "toString", "__proto__", ""])("refuses the approach %j", (approach) => {
    expect(() => anonymize(crop("astronaut-upright"), approach)).toThrow(RangeError);
  });

  it("refuses a crop whose eyes are not in it", () => {
    const source = crop("astronaut-upright");
    const landmarks = vectors.eye_regions.find((entry) => entry.region === null)!.landmarks;
    expect(() => anonymize({ ...source, landmarks }, "mask")).toThrow(UnusableFaceError);
  });
});

describe("eyeRegion", () => {
  it.each(vectors.eye_regions)("is Python's: $landmarks", ({ landmarks, region }) => {
    if (region === null) expect(() => eyeRegion(landmarks, 224)).toThrow(UnusableFaceError);
    else expect(eyeRegion(landmarks, 224)).toEqual(region);
  });

  it("refuses landmarks that are no numbers", () => {
    expect(() => eyeRegion([[NaN, 0], [1, 0], [2, 0], [3, 0], [4, 0]], 224)).toThrow(UnusableFaceError);
  });
});

describe("faceRegion", () => {
  it("is 6 to 95 % across and 4 to 94 % down", () => {
    expect(faceRegion(200)).toEqual([12, 8, 190, 188]);
  });
});
