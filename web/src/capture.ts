/**
 * From the running camera to anonymized faces: guide the person, ask for a head turn, crop and hide.
 *
 * Frames and bare crops live within this file's functions; what comes out is anonymized.
 */

import { align, type CanonicalCrop } from "./alignment";
import { anonymize, type AnonymizedFace } from "./anonymization";
import type { Camera } from "./camera";
import { chooseViewer, type FaceFinder, type FoundFace } from "./detection";
import { middle, UnusableFaceError } from "./geometry";
import { collectSignals, FRONTAL, HeadTurnChallenge, motion, type Side, type Signals } from "./signals";
import type { VeilNetwork } from "./veil";

/** What the person should do for a frame that can be used. */
export type Guidance = "no-face" | "several" | "closer" | "straight" | "centre" | "turn-left" | "turn-right" | "hold";

/** Why a capture ended without faces. */
export class CaptureError extends Error {
  override readonly name = "CaptureError";
  constructor(readonly reason: "no-face" | "several" | "camera-ended" | "stopped") {
    super(reason);
  }
}

export interface CaptureOptions {
  readonly approach: string;
  /** The network of the approach "veil"; null for any other. */
  readonly veil: VeilNetwork | null;
  /** How many frames are kept. */
  readonly frames: number;
  /** Where to turn the head to. */
  readonly side: Side;
  /** Tells the person what to do. */
  readonly guide: (guidance: Guidance) => void;
  /** Aborted when the person cannot turn the head. */
  readonly skip: AbortSignal;
  /** Aborted when the person wants no capture any more. */
  readonly stop: AbortSignal;
}

export interface Captured {
  readonly faces: readonly AnonymizedFace[];
  readonly signals: Signals;
}

/** In pixels of the frame, between the eye centres: half of what the crop has. */
const LEAST_EYE_DISTANCE = 40;
const PATIENCE_MS = 45_000;
const CHALLENGE_MS = 15_000;

interface Seen {
  readonly guidance: Guidance;
  readonly face: FoundFace | null;
  readonly crop: CanonicalCrop | null;
}

/** Look at the camera until enough frames are captured. @throws CaptureError */
export async function capture(camera: Camera, finder: FaceFinder, options: CaptureOptions): Promise<Captured> {
  const watch = new Watch(camera, finder, options);
  await watch.untilUsable({ signals: false });
  const challenge = await watch.challenge();
  const faces: AnonymizedFace[] = [];
  const found: FoundFace[] = [];
  while (faces.length < options.frames) {
    const seen = await watch.untilUsable({ signals: true });
    faces.push(await measured("ageveil-anonymize", () => anonymize(seen.crop, options.approach, options)));
    found.push(seen.face);
  }
  return { faces, signals: collectSignals(found, watch.motion, challenge, camera.label) };
}

/** Frame after frame of one capture. */
class Watch {
  readonly #camera: Camera;
  readonly #finder: FaceFinder;
  readonly #options: CaptureOptions;
  #previous: ImageData | null = null;
  /** The most that two frames in a row differed. */
  motion: number | null = null;

  constructor(camera: Camera, finder: FaceFinder, options: CaptureOptions) {
    [this.#camera, this.#finder, this.#options] = [camera, finder, options];
  }

  /** The next frame that shows one usable face. @throws CaptureError */
  async untilUsable(asked: { signals: boolean }): Promise<{ face: FoundFace; crop: CanonicalCrop }> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const { guidance, face, crop } = await this.#next(asked);
      this.#options.guide(guidance);
      if (face !== null && crop !== null) return { face, crop };
      if (performance.now() > deadline) throw new CaptureError(guidance === "several" ? "several" : "no-face");
    }
  }

  async challenge(): Promise<Signals["challenge"]> {
    const { side, skip, guide } = this.#options;
    const challenge = new HeadTurnChallenge(side);
    const deadline = performance.now() + CHALLENGE_MS;
    while (!skip.aborted && performance.now() < deadline) {
      guide(side === "left" ? "turn-left" : "turn-right");
      const { face } = await this.#next({ signals: false });
      if (face !== null && challenge.see(face.turn)) return "passed";
    }
    return skip.aborted ? "not_asked" : "failed";
  }

  async #next(asked: { signals: boolean }): Promise<Seen> {
    await nextFrame();
    if (this.#options.stop.aborted) throw new CaptureError("stopped");
    if (this.#camera.ended) throw new CaptureError("camera-ended");
    const frame = this.#camera.frame();
    if (this.#previous !== null) {
      const differs = motion(this.#previous, frame);
      if (differs !== null) this.motion = Math.max(this.motion ?? 0, differs);
    }
    this.#previous = frame;
    return look(frame, await this.#finder.find(frame, asked));
  }
}

/** What one frame is good for. */
async function look(frame: ImageData, faces: readonly FoundFace[]): Promise<Seen> {
  const viewer = chooseViewer(faces);
  if (viewer === "none") return { guidance: "no-face", face: null, crop: null };
  if (viewer === "several") return { guidance: "several", face: null, crop: null };
  const [a, b, c, d] = viewer.landmarks;
  const [right, left] = [middle(a, b), middle(c, d)];
  if (Math.hypot(right[0] - left[0], right[1] - left[1]) < LEAST_EYE_DISTANCE) {
    return { guidance: "closer", face: viewer, crop: null };
  }
  if (Math.abs(viewer.turn) > FRONTAL) return { guidance: "straight", face: viewer, crop: null };
  try {
    const crop = await measured("ageveil-align", () => align(frame, viewer.landmarks));
    return { guidance: "hold", face: viewer, crop };
  } catch (error) {
    if (!(error instanceof UnusableFaceError)) throw error;
    return { guidance: "centre", face: viewer, crop: null };
  }
}

/** Run a step and leave its time in the browser's own performance record. */
async function measured<Result>(name: string, step: () => Result | Promise<Result>): Promise<Result> {
  const start = performance.now();
  const result = await step();
  performance.measure(name, { start, end: performance.now() });
  return result;
}

function nextFrame(): Promise<void> {
  return new Promise((resolve) => requestAnimationFrame(() => resolve()));
}
