import { describe, expect, it } from "vitest";
import { chooseViewer, type FoundFace } from "../src/detection";
import type { Picture } from "../src/geometry";
import { collectSignals, HeadTurnChallenge, isVirtualCamera, motion } from "../src/signals";

function face(values: Partial<FoundFace>): FoundFace {
  const landmarks = [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0]] as const;
  return { landmarks, area: 100, turn: 0, antispoof: null, liveness: null, ...values };
}

function grey(width: number, height: number, value: (i: number) => number): Picture {
  return { width, height, data: Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => value(i >> 2)) };
}

describe("motion", () => {
  const still = grey(8, 8, () => 100);
  it("is 0 for a repeated picture and for less than three grey levels", () => {
    expect(motion(still, still)).toBe(0);
    expect(motion(still, grey(8, 8, () => 102))).toBe(0);
  });
  it("is the share of the pixels looked at that changed", () => {
    expect(motion(still, grey(8, 8, () => 103))).toBe(1);
    expect(motion(still, grey(8, 8, (i) => (i < 32 ? 150 : 100)))).toBe(0.5); // the upper half
  });
  it("is unknown where the camera changed its size", () => {
    expect(motion(still, grey(8, 9, () => 100))).toBeNull();
  });
});

describe("HeadTurnChallenge", () => {
  it.each([
    ["left", [0, 0.2, 0.4, 0.3, 0.1], [false, false, false, false, true]],
    ["right", [0, -0.4, 0.1], [false, false, true]],
    ["left", [0, -0.5, 0], [false, false, false]], // the other side
    ["left", [0, 0.34, 0], [false, false, false]], // not far enough
    ["right", [0, 0, 0, 0], [false, false, false, false]], // a still picture
  ] as const)("to the %s, seeing %j", (side, turns, passed) => {
    const challenge = new HeadTurnChallenge(side);
    expect(turns.map((turn) => challenge.see(turn))).toEqual(passed);
  });
});

describe("isVirtualCamera", () => {
  it.each([
    ["OBS Virtual Camera", true],
    ["FaceTime HD Camera", false],
    ["", null],
  ])("%j: %s", (label, expected) => expect(isVirtualCamera(label)).toBe(expected));
});

describe("collectSignals", () => {
  it("takes the most suspicious value of several frames", () => {
    const faces = [face({ antispoof: 0.9, liveness: 0.8 }), face({ antispoof: 0.4, liveness: 1 })];
    expect(collectSignals(faces, 0.5, "passed", "A camera")).toEqual({
      antispoof: 0.4, liveness: 0.8, motion: 0.5, challenge: "passed", virtual_camera: false,
    });
  });
  it("tells tenths, never less: more digits would tell faces apart", () => {
    const faces = [face({ antispoof: 0.8149, liveness: 0.05 })];
    expect(collectSignals(faces, 0.3333, "passed", "")).toMatchObject({ antispoof: 0.8, liveness: 0.1, motion: 0.3 });
  });
  it("says null where nothing is known", () => {
    expect(collectSignals([face({})], null, "not_asked", "")).toEqual({
      antispoof: null, liveness: null, motion: null, challenge: "not_asked", virtual_camera: null,
    });
  });
});

describe("chooseViewer", () => {
  it("takes the largest face unless a second has half its area", () => {
    expect(chooseViewer([])).toBe("none");
    const [large, small, half] = [face({ area: 100 }), face({ area: 49.9 }), face({ area: 50 })];
    expect(chooseViewer([large])).toBe(large);
    expect(chooseViewer([large, small])).toBe(large);
    expect(chooseViewer([large, half])).toBe("several");
  });
});
