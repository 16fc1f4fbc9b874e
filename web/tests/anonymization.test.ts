import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { anonymize, APPROACHES, eyeRegion, faceRegion } from "../src/anonymization";
import { ChaChaDraws } from "../src/draws";
import { UnusableFaceError } from "../src/geometry";
import { ModelError } from "../src/runtime";
import { checkLevels, veilShade, type VeilNetwork } from "../src/veil";
import { crop, installedVeil, key, largestDifference, rgb, vectors } from "./vectors";

/** A painter that a test tells what to paint. */
function painter(left: number, right: number): VeilNetwork {
  return { sha256: "0123456789abcdef".repeat(4), look: () => Promise.resolve([left, right]) };
}

describe("anonymize", () => {
  it.each(vectors.anonymizations)("makes Python's pixels and receipt: $approach of $crop", { timeout: 60_000 }, async (entry) => {
    const source = crop(entry.crop);
    const before = source.pixels.slice();
    const draws = new ChaChaDraws(key(entry.key));
    const face = await anonymize(source, entry.approach, { draws, veil: await installedVeil() });
    if (entry.sha256 === undefined) {
      expect(largestDifference(face.pixels, rgb(`${entry.crop}-${entry.approach}`))).toBeLessThanOrEqual(1);
    } else {
      expect(createHash("sha256").update(face.pixels).digest("hex")).toBe(entry.sha256);
    }
    expect(JSON.parse(JSON.stringify(face.receipt))).toEqual(entry.receipt);
    expect(largestDifference(source.pixels, before)).toBe(0);
  });

  it("has vectors for every approach", async () => {
    const veil = await installedVeil();
    const names = Object.keys(APPROACHES).filter((name) => name !== "veil" || veil !== null);
    expect(new Set(vectors.anonymizations.map((entry) => entry.approach))).toEqual(new Set(names));
  });

  it.each(Object.keys(APPROACHES))("leaves everything outside the region as it was: %s", async (approach) => {
    const source = crop("astronaut-upright");
    const { pixels, receipt } = await anonymize(source, approach, { veil: painter(0, 15) });
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

  it.each(["mosaic", "grid", "dp-pix"])("draws afresh each time: %s", async (approach) => {
    const source = crop("astronaut-upright");
    const [one, other] = [await anonymize(source, approach), await anonymize(source, approach)];
    expect(largestDifference(one.pixels, other.pixels)).toBeGreaterThan(0);
  });

  it.each(["original", "none", "toString", "__proto__", ""])("refuses the approach %j", async (approach) => {
    await expect(anonymize(crop("astronaut-upright"), approach)).rejects.toThrow(RangeError);
  });

  it.each(Object.keys(APPROACHES))("refuses a crop whose eyes are not in it: %s", async (approach) => {
    const source = crop("astronaut-upright");
    const landmarks = vectors.eye_regions.find((entry) => entry.region === null)!.landmarks;
    const veil = painter(1, 2);
    await expect(anonymize({ ...source, landmarks }, approach, { veil })).rejects.toThrow(UnusableFaceError);
  });

  it.each(["grid", "dp-pix", "veil"])("tells nothing of where the eyes were: %s", async (approach) => {
    const [one, other] = await Promise.all(
      ["astronaut-upright", "grace_hopper-upright"].map((name) => anonymize(crop(name), approach, { veil: painter(3, 4) })),
    );
    expect(one.receipt).toEqual(other.receipt);
    expect(one.receipt.eye_region).toEqual([16, 20, 205, 82]); // by hand in tests/test_anonymization.py
  });
});

describe("veil", () => {
  it("paints two halves, and names its network", async () => {
    const { pixels, receipt } = await anonymize(crop("astronaut-upright"), "veil", { veil: painter(3, 12) });
    pixels.forEach((value, i) => {
      if (value !== (Math.floor(i / 3) % 224 < 112 ? 3 * 16 + 8 : 12 * 16 + 8)) throw new Error(`at ${i}: ${value}`);
    });
    expect(receipt.parameters).toEqual({ levels: 16, filter: "0123456789abcdef" });
  });

  it("has 16 shades, the middles of equal spans", () => {
    expect([0, 1, 7, 15].map(veilShade)).toEqual([8, 24, 120, 248]);
  });

  it("is none without its network", async () => {
    await expect(anonymize(crop("astronaut-upright"), "veil")).rejects.toThrow(ModelError);
  });

  it.each([[[16, 0]], [[0, -1]], [[0.5, 3]], [[Number.NaN, 1]], [[1]], [[1, 2, 3]]])("refuses the levels %j", (levels) => {
    expect(() => checkLevels(levels)).toThrow(ModelError);
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
