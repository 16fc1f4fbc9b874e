/**
 * Signals of presentation attacks, read before anything is hidden. They are reports of a device that its owner
 * controls: they stop the careless, not the determined.
 */

import type { FoundFace } from "./detection";
import type { Picture } from "./geometry";

/** What is sent beside an answer; the token says that the client reported it. */
export interface Signals {
  readonly antispoof: number | null;
  readonly liveness: number | null;
  readonly motion: number | null;
  readonly challenge: "passed" | "failed" | "not_asked";
  readonly virtual_camera: boolean | null;
}

/**
 * Put the signals of a try together; of several frames the most suspicious value counts. Numbers are rounded to tenths,
 * since they are read off the bare face and more digits would tell one face from another.
 */
export function collectSignals(
  faces: readonly FoundFace[],
  motion: number | null,
  challenge: Signals["challenge"],
  cameraLabel: string,
): Signals {
  return {
    antispoof: least(faces.map((face) => face.antispoof)),
    liveness: least(faces.map((face) => face.liveness)),
    motion: motion === null ? null : tenths(motion),
    challenge,
    virtual_camera: isVirtualCamera(cameraLabel),
  };
}

function least(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : tenths(Math.min(1, Math.max(0, Math.min(...known))));
}

function tenths(value: number): number {
  return Math.round(10 * value) / 10;
}

/** Every fourth pixel of every fourth row is looked at. */
const STEP = 4;
/** Grey levels: a sensor's noise is above it in some pixels, a repeated picture in none. */
const CHANGED = 2;

/** Share of the pixels that differ between two frames; 0 for a still picture. Null where their sizes differ. */
export function motion(before: Picture, after: Picture): number | null {
  if (before.width !== after.width || before.height !== after.height) return null;
  let [changed, seen] = [0, 0];
  for (let y = 0; y < after.height; y += STEP) {
    for (let x = 0; x < after.width; x += STEP, seen++) {
      const green = 4 * (y * after.width + x) + 1;
      if (Math.abs(after.data[green] - before.data[green]) > CHANGED) changed++;
    }
  }
  return changed / seen;
}

const VIRTUAL = [
  "obs", "virtual", "manycam", "snap camera", "xsplit", "droidcam", "epoccam", "iriun", "v4l2loopback", "dummy",
  "mmhmm", "camo", "e2esoft", "splitcam", "fake", "unity",
];

/** Whether a camera's name is that of a known virtual one; null where it has none. A name is easily changed. */
export function isVirtualCamera(label: string): boolean | null {
  const name = label.toLowerCase();
  return name === "" ? null : VIRTUAL.some((word) => name.includes(word));
}

/** The side to turn to, as the person sees it. */
export type Side = "left" | "right";

/** As `headTurn`, in distances between the eyes. */
export const FRONTAL = 0.2;
const TURNED = 0.35;

/** Draw a side that nobody can foresee. */
export function drawSide(): Side {
  return crypto.getRandomValues(new Uint8Array(1))[0] & 1 ? "left" : "right";
}

/** A head turn that was asked for: to that side, then back. */
export class HeadTurnChallenge {
  #turned = false;

  constructor(readonly side: Side) {}

  /** Look at the head in the next frame (see `headTurn`); true once it has turned and come back. */
  see(turn: number): boolean {
    const towards = this.side === "left" ? turn : -turn;
    if (towards >= TURNED) this.#turned = true;
    return this.#turned && Math.abs(turn) <= FRONTAL;
  }
}
