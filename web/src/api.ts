/** What the page says to the service: four requests to its own origin, with the check's secret. */

import type { AnonymizedFace } from "./anonymization";
import type { Outcome, Terms } from "./decision";
import type { Signals } from "./signals";

export type Mode = "anonymized" | "device";

/** What a browser knows of a check; docs/openapi.json has all of it. */
export interface CheckView {
  readonly state: "open" | "completed" | "expired";
  readonly audience: string;
  readonly rating: string | null;
  readonly minimum_age: number | null;
  readonly approach: string;
  /** The network that the approach runs; null for most. */
  readonly filter: { readonly sha256: string; readonly url: string } | null;
  readonly frames: number;
  readonly tries_left: number;
  readonly modes: readonly Mode[];
  readonly outcome: Outcome | null;
  readonly expires_at: number;
  readonly model: { readonly sha256: string; readonly url: string };
  readonly terms: Terms;
}

export interface TryResult {
  readonly outcome: Outcome;
  readonly tries_left: number;
  readonly token: string | null;
}

/** The service refuses, or cannot be reached ("network"). `code` is that of its problem document. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
  constructor(readonly code: string) {
    super(code);
  }
}

export class CheckClient {
  readonly #path: string;
  readonly #secret: string;

  constructor(id: string, secret: string) {
    this.#path = `/v1/checks/${encodeURIComponent(id)}`;
    this.#secret = secret;
  }

  /** @throws ServiceError, as all that follow. */
  read(): Promise<CheckView> {
    return this.#ask("GET", "");
  }

  /** Send anonymized faces, and nothing else of a picture. */
  async sendFaces(faces: readonly AnonymizedFace[], signals: Signals): Promise<TryResult> {
    const frames = await Promise.all(
      faces.map(async ({ pixels, receipt }) => ({ pixels: await packed(pixels), receipt })),
    );
    return this.#ask("POST", "/faces", { frames, signals });
  }

  /** Send a decision that was made here. */
  sendDecision(outcome: Outcome, modelSha256: string, signals: Signals): Promise<TryResult> {
    return this.#ask("POST", "/decision", { outcome, model: modelSha256, signals });
  }

  /** Take the last outcome as the answer. */
  end(): Promise<TryResult> {
    return this.#ask("POST", "/end");
  }

  async #ask<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    const headers: Record<string, string> = { Authorization: `Check ${this.#secret}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer: Response;
    try {
      answer = await fetch(this.#path + path, {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        credentials: "omit",
        cache: "no-store",
      });
    } catch {
      throw new ServiceError("network");
    }
    const data: unknown = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new ServiceError((data as { code?: string }).code ?? "internal");
    return data as Answer;
  }
}

const CHUNK = 0x3000; // a multiple of 3, so that the pieces' texts join

/** Pixels as the service takes them: a zlib stream in base64. A veil, which says one byte, weighs 2 kB and not 200. */
async function packed(pixels: Uint8ClampedArray): Promise<string> {
  const stream = new Blob([Uint8Array.from(pixels)]).stream().pipeThrough(new CompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    text += btoa(String.fromCharCode(...bytes.subarray(at, at + CHUNK)));
  }
  return text;
}
