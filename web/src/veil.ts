/**
 * The network of the approach "veil": it looks at the bare face and says two levels, each 0 to 15. They are all that
 * is left of the face.
 */

import { ModelError, openSession, run } from "./runtime";

/** Grey levels that each half of a veil may have. */
export const VEIL_LEVELS = 16;

export type Levels = readonly [left: number, right: number];

export interface VeilNetwork {
  /** Of its file. */
  readonly sha256: string;
  /** @param pixels A bare crop, RGB, `size` pixels across and down. @throws ModelError it says other levels. */
  look(pixels: Uint8ClampedArray, size: number): Promise<Levels>;
}

/** @param model The ONNX file, which `fetchModel` has checked. */
export async function loadVeil(model: Uint8Array, sha256: string): Promise<VeilNetwork> {
  const session = await openSession(model);
  return {
    sha256,
    look: async (pixels, size) => {
      const unused = new Uint8Array(size ** 2); // the mask that estimators take
      const [, levels] = await run(session, size, Uint8Array.from(pixels), unused);
      return checkLevels(levels);
    },
  };
}

/** Any other number would make more pictures than those that hold one byte. @throws ModelError */
export function checkLevels(levels: ArrayLike<number>): Levels {
  const numbers = Array.from(levels);
  if (numbers.length !== 2 || !numbers.every((level) => Number.isInteger(level) && level >= 0 && level < VEIL_LEVELS)) {
    throw new ModelError(`the veil's network gave other levels than two whole numbers below ${VEIL_LEVELS}`);
  }
  return [numbers[0], numbers[1]];
}

/** The grey of a level: the middle of one of 16 equal spans. */
export function veilShade(level: number): number {
  return level * (256 / VEIL_LEVELS) + 128 / VEIL_LEVELS;
}
