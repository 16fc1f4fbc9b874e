/** The page: explain, camera, preview, answer. One step is shown at a time; its heading takes the focus. */

import { CheckClient, ServiceError, type CheckView, type Mode, type TryResult } from "./api";
import { CROP_SIZE } from "./alignment";
import { getApproach, type AnonymizedFace } from "./anonymization";
import { Camera, CameraError } from "./camera";
import { capture, CaptureError, type Captured } from "./capture";
import { decide, fuse } from "./decision";
import { FaceFinder } from "./detection";
import { fetchModel } from "./runtime";
import { drawSide } from "./signals";
import { loadVeil, type VeilNetwork } from "./veil";
import { GUIDANCE, outcomeWords, problemWords } from "./words";

type Step = "explain" | "camera" | "preview" | "sending" | "result" | "problem";
const STEPS: readonly Step[] = ["explain", "camera", "preview", "sending", "result", "problem"];

function element<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  return document.getElementById(id) as Kind;
}

function show(step: Step): void {
  for (const name of STEPS) element(name).hidden = name !== step;
  element(step).querySelector("h2")?.focus();
}

/** Text that is also read out. */
function say(text: string): void {
  const status = element("status");
  if (status.textContent !== text) status.textContent = text;
}

/** Resolves with the id of the first of these buttons that is pressed. */
function pressed<Id extends string>(...ids: Id[]): Promise<Id> {
  return new Promise((resolve) => {
    const once = new AbortController();
    for (const id of ids) {
      const answer = (): void => {
        once.abort();
        resolve(id);
      };
      element(id).addEventListener("click", answer, { signal: once.signal });
    }
  });
}

class Page {
  readonly #client: CheckClient;
  #finder: Promise<FaceFinder> | null = null;
  #veil: Promise<VeilNetwork | null> | null = null;

  constructor(client: CheckClient) {
    this.#client = client;
  }

  /** Run the check until it is answered or over; a problem is told, and started over from if that may help. */
  async run(): Promise<void> {
    for (;;) {
      try {
        await this.#once();
        return;
      } catch (error) {
        const words = problemWords(codeOf(error));
        say("");
        element("problem-title").textContent = words.title;
        element("problem-text").textContent = words.text;
        element("retry").hidden = !words.again;
        show("problem");
        if (!words.again) return;
        await pressed("retry");
      }
    }
  }

  async #once(): Promise<void> {
    const check = await this.#client.read();
    if (check.state === "expired") throw new ServiceError("check_expired");
    if (check.state === "completed") return this.#finish(check, await this.#client.end());
    for (;;) {
      const mode = await this.#explain(check);
      const result = await this.#try(check, mode);
      if (result === null) continue;
      if (result.token !== null) return this.#finish(check, result);
      this.#tell(check, result);
      if ((await pressed("again", "keep")) === "keep") return this.#finish(check, await this.#client.end());
    }
  }

  /** Say what is asked and what happens; returns how the answer shall be computed. */
  async #explain(check: CheckView): Promise<Mode> {
    element("site").textContent = new URL(check.audience).host;
    element("age").textContent = String(check.minimum_age);
    element("hidden").textContent = getApproach(check.approach).summary;
    element("modes").hidden = check.modes.length < 2;
    for (const mode of ["anonymized", "device"] as const) {
      element(`how-${mode}`).hidden = !check.modes.includes(mode);
      element<HTMLInputElement>(`mode-${mode}`).checked = check.modes.at(-1) === mode;
    }
    say("");
    show("explain");
    performance.mark("ageveil-ready");
    // Fetched while the person reads, so that the camera need not wait; a failure is told when it is needed.
    this.#finder ??= FaceFinder.load();
    this.#finder.catch(() => (this.#finder = null));
    this.#veil ??= fetchVeil(check);
    this.#veil.catch(() => (this.#veil = null));
    await pressed("start");
    return element<HTMLInputElement>("mode-device").checked ? "device" : "anonymized";
  }

  /** One try; null where the person went back. */
  async #try(check: CheckView, mode: Mode): Promise<TryResult | null> {
    for (;;) {
      const captured = await this.#capture(check);
      if (captured === null) return null;
      draw(captured.faces);
      element("picture-text").textContent = getApproach(check.approach).summary;
      element("leaves").textContent = getApproach(check.approach).leaves;
      for (const other of ["anonymized", "device"] as const) {
        element(`what-${other}`).hidden = other !== mode;
      }
      element("send").textContent = mode === "device" ? "Decide here and send the answer" : "Send this picture";
      show("preview");
      say("");
      const choice = await pressed("send", "retake", "leave");
      if (choice === "retake") continue;
      draw([]);
      if (choice === "leave") return null;
      return this.#answer(check, mode, captured);
    }
  }

  async #capture(check: CheckView): Promise<Captured | null> {
    const [skip, stop] = [new AbortController(), new AbortController()];
    const once = { signal: stop.signal };
    const video = element<HTMLVideoElement>("video");
    say("Starting the camera …");
    const camera = await Camera.open(video);
    try {
      show("camera");
      say("Loading …");
      element("skip").hidden = true;
      element("skip").addEventListener("click", () => skip.abort(), once);
      element("stop").addEventListener("click", () => stop.abort(), once);
      const finder = await (this.#finder ?? FaceFinder.load());
      const veil = await (this.#veil ?? fetchVeil(check));
      return await capture(camera, finder, {
        approach: check.approach,
        veil,
        frames: check.frames,
        side: drawSide(),
        guide: (guidance) => {
          say(GUIDANCE[guidance]);
          element("skip").hidden = !guidance.startsWith("turn-");
        },
        skip: skip.signal,
        stop: stop.signal,
      });
    } catch (error) {
      if (error instanceof CaptureError && error.reason === "stopped") return null;
      throw error;
    } finally {
      stop.abort();
      camera.close();
    }
  }

  async #answer(check: CheckView, mode: Mode, { faces, signals }: Captured): Promise<TryResult> {
    show("sending");
    if (mode === "anonymized") {
      say("Sending …");
      return this.#client.sendFaces(faces, signals);
    }
    say("Your device decides. The first time it loads about 26 MB.");
    const { estimate } = await import("./estimation");
    const model = await fetchModel(check.model.url, check.model.sha256);
    const years = fuse(await estimate(faces, model, check.terms.temperature));
    const outcome = decide(years, check.minimum_age ?? 0, check.terms);
    say("Sending the answer …");
    return this.#client.sendDecision(outcome, check.model.sha256, signals);
  }

  /** Show an outcome that another try may change. */
  #tell(check: CheckView, { outcome, tries_left: left }: TryResult): void {
    this.#showOutcome(check, outcome);
    element("next").textContent = `You can try again (${left} left), or keep this answer.`;
    for (const id of ["again", "keep"]) element(id).hidden = false;
  }

  /** Show the final outcome and hand the token to the site that asked, and to no other. */
  #finish(check: CheckView, { outcome, token }: TryResult): void {
    this.#showOutcome(check, outcome);
    for (const id of ["again", "keep"]) element(id).hidden = true;
    if (window.parent === window) {
      element("next").textContent = "You can close this page.";
      return;
    }
    window.parent.postMessage({ type: "ageveil-token", token, outcome }, check.audience);
    element("next").textContent = "The site has this answer now.";
  }

  #showOutcome(check: CheckView, outcome: TryResult["outcome"]): void {
    const words = outcomeWords(outcome, check.minimum_age ?? 0);
    element("result-title").textContent = words.title;
    element("result-text").textContent = words.text;
    say("");
    show("result");
  }
}

/** The network that hides the face, where the approach is one. */
async function fetchVeil({ filter }: CheckView): Promise<VeilNetwork | null> {
  if (filter === null) return null;
  return loadVeil(await fetchModel(filter.url, filter.sha256), filter.sha256);
}

function codeOf(error: unknown): string {
  if (error instanceof ServiceError) return error.code;
  if (error instanceof CameraError) return error.problem;
  if (error instanceof CaptureError) return error.reason;
  if (error instanceof TypeError) return "network"; // what a browser throws where a file does not arrive
  return "internal";
}

/** Draw anonymized faces, and nothing of those drawn before. */
function draw(faces: readonly AnonymizedFace[]): void {
  const pictures = faces.map(({ pixels }, index) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = CROP_SIZE;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Anonymized picture ${index + 1} of ${faces.length}`);
    const image = new ImageData(CROP_SIZE, CROP_SIZE);
    image.data.fill(255);
    for (let i = 0; i < CROP_SIZE ** 2; i++) image.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    canvas.getContext("2d")!.putImageData(image, 0, 0);
    return canvas;
  });
  element("pictures").replaceChildren(...pictures);
}

const id = location.pathname.split("/").at(-1) ?? "";
const secret = location.hash.slice(1);
void new Page(new CheckClient(id, secret)).run();
