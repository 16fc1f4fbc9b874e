/** The camera: open it, take frames, close it. */

/** Why there is no picture. */
export type CameraProblem = "no-camera" | "camera-refused" | "camera-busy";

export class CameraError extends Error {
  override readonly name = "CameraError";
  constructor(readonly problem: CameraProblem) {
    super(problem);
  }
}

const REASONS: Readonly<Record<string, CameraProblem>> = {
  NotAllowedError: "camera-refused",
  SecurityError: "camera-refused",
  NotFoundError: "no-camera",
  OverconstrainedError: "no-camera",
};

/** An open camera that plays into a video element. */
export class Camera {
  readonly #video: HTMLVideoElement;
  readonly #stream: MediaStream;
  readonly #context: CanvasRenderingContext2D;

  private constructor(video: HTMLVideoElement, stream: MediaStream) {
    this.#video = video;
    this.#stream = stream;
    const canvas = document.createElement("canvas"); // never shown
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    this.#context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" })!;
  }

  /** Ask for the camera and play it. @throws CameraError */
  static async open(video: HTMLVideoElement): Promise<Camera> {
    if (navigator.mediaDevices === undefined) throw new CameraError("no-camera");
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { facingMode: "user", width: { ideal: 640 }, height: { ideal: 480 } },
      });
    } catch (error) {
      throw new CameraError(REASONS[(error as DOMException).name] ?? "camera-busy");
    }
    try {
      video.srcObject = stream;
      await video.play();
      return new Camera(video, stream);
    } catch {
      // Nobody holds it yet who would switch it off.
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
      throw new CameraError("camera-busy");
    }
  }

  /** The name that the system gives the camera. */
  get label(): string {
    return this.#stream.getVideoTracks()[0]?.label ?? "";
  }

  /** Whether it was taken away or switched off. */
  get ended(): boolean {
    return this.#stream.getVideoTracks().every((track) => track.readyState === "ended");
  }

  /** The frame that is shown now. */
  frame(): ImageData {
    const { width, height } = this.#context.canvas;
    this.#context.drawImage(this.#video, 0, 0, width, height);
    return this.#context.getImageData(0, 0, width, height);
  }

  /** Switch it off and forget the last frame. */
  close(): void {
    for (const track of this.#stream.getTracks()) track.stop();
    this.#video.srcObject = null;
    this.#context.clearRect(0, 0, this.#context.canvas.width, this.#context.canvas.height);
  }
}
