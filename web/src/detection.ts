/** Find faces and their mesh in the browser, with networks that our own origin serves. */

import type { Config, Human } from "@vladmandic/human";
import type { FivePoints } from "./geometry";
import { fivePoints, headTurn, type Mesh } from "./landmarks";

/** A face in a frame, coordinates in its pixels. */
export interface FoundFace {
  readonly landmarks: FivePoints;
  readonly area: number;
  /** See `headTurn`. */
  readonly turn: number;
  /** How real the picture looks, 0 to 1; null where it was not asked for. */
  readonly antispoof: number | null;
  /** How alive the face looks, 0 to 1; null where it was not asked for. */
  readonly liveness: number | null;
}

const MAX_FACES = 3;
/** A second face of at least this share of the first one's box: nobody can tell who is at the screen. */
const SIMILAR_AREA = 0.5;

const CONFIG: Partial<Config> = {
  backend: "wasm", // the same numbers on every device, and no compilation of shaders before the first face
  modelBasePath: "/models/",
  wasmPath: "/wasm/",
  cacheSensitivity: 0, // look at every frame
  cacheModels: false, // leave nothing in the browser's storage
  debug: false,
  warmup: "none",
  filter: { enabled: false },
  gesture: { enabled: false },
  body: { enabled: false },
  hand: { enabled: false },
  object: { enabled: false },
  segmentation: { enabled: false },
  face: {
    enabled: true,
    detector: { rotation: true, maxDetected: MAX_FACES, minConfidence: 0.4 },
    mesh: { enabled: true },
    iris: { enabled: false },
    attention: { enabled: false },
    emotion: { enabled: false },
    description: { enabled: false },
    antispoof: { enabled: true },
    liveness: { enabled: true },
  },
};

const WITHOUT_SIGNALS: Partial<Config> = { face: { antispoof: { enabled: false }, liveness: { enabled: false } } };
const WITH_SIGNALS: Partial<Config> = { face: { antispoof: { enabled: true }, liveness: { enabled: true } } };

/** The loaded networks. */
export class FaceFinder {
  readonly #human: Human;

  private constructor(human: Human) {
    this.#human = human;
  }

  /** Load library and networks. @throws Error one cannot be fetched. */
  static async load(): Promise<FaceFinder> {
    const library = await import("@vladmandic/human");
    const human = new library.Human(CONFIG);
    await human.load();
    // The first run sets up memory; without it the first face would wait.
    await human.detect(new ImageData(64, 64), WITHOUT_SIGNALS);
    return new FaceFinder(human);
  }

  /**
   * Faces of a frame, the largest first.
   *
   * @param signals Ask the antispoof and liveness networks as well.
   */
  async find(frame: ImageData, { signals }: { signals: boolean }): Promise<FoundFace[]> {
    const result = await this.#human.detect(frame, signals ? WITH_SIGNALS : WITHOUT_SIGNALS);
    return result.face
      .filter((face) => face.meshRaw.length > 0)
      .map((face) => ({ face, mesh: inPixels(face.meshRaw, frame) }))
      .map(({ face, mesh }) => ({
        landmarks: fivePoints(mesh),
        area: face.box[2] * face.box[3],
        turn: headTurn(mesh),
        antispoof: face.real ?? null,
        liveness: face.live ?? null,
      }))
      .sort((one, other) => other.area - one.area);
  }
}

/** The library rounds its pixels; its shares of the sides are exact. */
function inPixels(shares: Mesh, { width, height }: ImageData): Mesh {
  return shares.map(([x, y]) => [x * width, y * height] as const);
}

/** Which face is at the screen: the largest, "none" without one, "several" where a second is of similar size. */
export function chooseViewer(faces: readonly FoundFace[]): FoundFace | "none" | "several" {
  const [first, second] = faces;
  if (first === undefined) return "none";
  return second !== undefined && second.area >= SIMILAR_AREA * first.area ? "several" : first;
}
