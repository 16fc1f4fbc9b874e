import { readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { anonymize } from "../src/anonymization";
import { applyTemperature, decide, fuse } from "../src/decision";
import { ChaChaDraws } from "../src/draws";
import { estimate } from "../src/estimation";
import { crop, installedVeil, key, largestDifference, vectors } from "./vectors";

/** Probabilities over the years 0 to 100 with a few set. */
function years(set: Record<number, number>): Float64Array {
  return Float64Array.from({ length: 101 }, (_, age) => set[age] ?? 0);
}

describe("applyTemperature", () => {
  it("raises to 1 / temperature and scales to sum 1", () => {
    const [low, high] = applyTemperature([0.1, 0.9], 0.5); // squares: 0.01 and 0.81 of 0.82
    expect(low).toBeCloseTo(0.01 / 0.82, 12);
    expect(high).toBeCloseTo(0.81 / 0.82, 12);
  });
  it("leaves zeros and a temperature of 1 alone", () => {
    expect([...applyTemperature([0, 0.25, 0.75], 1)]).toEqual([0, expect.closeTo(0.25, 12), expect.closeTo(0.75, 12)]);
  });
});

describe("fuse", () => {
  it("is the mean", () => {
    const fused = fuse([years({ 20: 1 }), years({ 20: 0.5, 30: 0.5 })]);
    expect([fused[20], fused[30]]).toEqual([0.75, 0.25]);
  });
  it("needs a distribution", () => expect(() => fuse([])).toThrow(RangeError));
});

describe("decide", () => {
  const terms = { buffer: 2, confidence: 0.75, temperature: 1 };
  it.each([
    ["allow", { 20: 0.75, 17: 0.25 }],
    ["step_up", { 20: 0.74, 17: 0.26 }],
    ["step_up", { 19: 1 }], // old enough, but within the buffer
    ["deny", { 17: 0.75, 30: 0.25 }],
    ["step_up", { 18: 0.26, 17: 0.74 }],
  ] as const)("%s from %j at 18", (outcome, set) => expect(decide(years(set), 18, terms)).toBe(outcome));

  it.each([[years({})], [years({ 20: Number.NaN })], [years({ 20: 2 })]])("refuses what is no distribution", (wrong) => {
    expect(() => decide(wrong, 18, terms)).toThrow(RangeError);
  });
});

const WEIGHTS = new URL("../../weights/research/src/ageveil_weights_research/ageveil.onnx", import.meta.url);

describe.skipIf(!existsSync(WEIGHTS))("estimate", () => {
  it("says of Python's crops what Python says", { timeout: 60_000 }, async () => {
    const model = new Uint8Array(await readFile(WEIGHTS));
    for (const entry of vectors.distributions) {
      const draws = new ChaChaDraws(key(entry.key));
      const face = await anonymize(crop(entry.crop), entry.approach, { draws, veil: await installedVeil() });
      const [found] = await estimate([face], model, entry.temperature);
      // Blur differs by a grey level here and there, and processors round in their own ways.
      expect(largestDifference(found, entry.years)).toBeLessThan(2e-3);
    }
  });
});
