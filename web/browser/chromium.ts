/** A Chromium with a fake camera, and checks to visit with it. */

import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";

function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`$${name} is not set: tests/web/test_browser.py starts these tests`);
  return value;
}

export const ORIGIN = setting("AGEVEIL_ORIGIN");
export const PARTY_ORIGIN = setting("AGEVEIL_PARTY_ORIGIN");
const API_KEY = setting("AGEVEIL_API_KEY");
const VIDEOS = setting("AGEVEIL_VIDEOS");

export type Video = "hopper" | "astronaut" | "still" | "room" | "two";

/** @param video What the fake camera shows; null for a machine without a camera. */
export function launch(video: Video | null): Promise<Browser> {
  const camera = ["--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${VIDEOS}/${video}.mjpeg`];
  const args = ["--no-sandbox", ...(video === null ? [] : camera)];
  return chromium.launch({ executablePath: setting("AGEVEIL_CHROMIUM"), args });
}

/** A page that may use the camera, and every request it makes. */
export async function open(browser: Browser, options: BrowserContextOptions = {}): Promise<[Page, string[]]> {
  const context = await browser.newContext({ permissions: ["camera"], ...options });
  const page = await context.newPage();
  const requests: string[] = [];
  page.on("request", (request) => requests.push(`${request.method()} ${request.url()}`));
  return [page, requests];
}

export interface Created {
  readonly id: string;
  readonly secret: string;
  readonly url: string;
  readonly nonce: string;
}

/** Create a check as a party does. */
export async function createCheck(fields: Record<string, unknown> = {}): Promise<Created> {
  const nonce = crypto.randomUUID();
  const asked = { minimum_age: 18, audience: PARTY_ORIGIN, nonce, ...fields };
  const made = await ask<Created>("/v1/checks", asked);
  return { ...made, nonce };
}

/** Redeem a token as a party does. */
export function redeem(token: string, nonce: string): Promise<Record<string, unknown>> {
  return ask("/v1/tokens/redeem", { token, nonce });
}

async function ask<Answer>(path: string, body: unknown): Promise<Answer> {
  const headers = { Authorization: `Bearer ${API_KEY}`, "Content-Type": "application/json" };
  const answer = await fetch(ORIGIN + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as Answer;
}

export async function shown(page: Page, step: string): Promise<void> {
  await page.waitForSelector(`#${step}:not([hidden])`);
}

/** From the explanation to the preview, without turning the head. */
export async function toPreview(page: Page): Promise<void> {
  await page.click("#start");
  await page.click("#skip");
  await shown(page, "preview");
}
