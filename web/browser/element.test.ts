import { createServer, type Server } from "node:http";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCheck, launch, open, ORIGIN, PARTY_ORIGIN, redeem } from "./chromium";

/** A relying party's page on an origin of its own. */
function partyPage(url: string): string {
  return `<!doctype html><title>A party</title><script src="${ORIGIN}/element.js" type="module"></script>
<script>window.tokens = []; addEventListener("ageveil-token", (event) => tokens.push(event.detail));</script>
<ageveil-check src="${url}"></ageveil-check>`;
}

let [browser, server, url]: [Browser | null, Server | null, string] = [null, null, ""];

beforeAll(async () => {
  browser = await launch("hopper");
  server = createServer((_, answer) => {
    answer.writeHead(200, { "Content-Type": "text/html" });
    answer.end(partyPage(url));
  });
  await new Promise<void>((resolve) => server!.listen(Number(new URL(PARTY_ORIGIN).port), "127.0.0.1", resolve));
});

afterAll(async () => {
  await browser?.close();
  server?.close();
});

describe("<ageveil-check>", () => {
  it("hands the token over to the party's page, and nothing else", async () => {
    const check = await createCheck();
    url = check.url;
    const [page] = await open(browser!);
    await page.goto(PARTY_ORIGIN);
    const frame = page.frameLocator("ageveil-check iframe");
    await frame.locator("#start").click();
    await frame.locator("#skip").click();
    await frame.locator("#send").click();
    await page.waitForFunction("tokens.length > 0");
    const [{ token, outcome }] = (await page.evaluate("tokens")) as { token: string; outcome: string }[];
    expect(outcome).toBe("allow");
    expect(await page.evaluate(() => document.querySelector("iframe")!.contentDocument)).toBeNull();
    const claims = await redeem(token, check.nonce);
    expect(claims).toMatchObject({ outcome: "allow", minimum_age: 18, computed: "server", aud: PARTY_ORIGIN });
    await page.context().close();
  });

  it("ignores messages of anybody else", async () => {
    url = (await createCheck()).url;
    const [page] = await open(browser!);
    await page.goto(PARTY_ORIGIN);
    await page.waitForSelector("iframe");
    await page.evaluate(() => postMessage({ type: "ageveil-token", token: "forged", outcome: "allow" }, "*"));
    await page.waitForTimeout(300);
    expect(await page.evaluate("tokens")).toEqual([]);
    await page.context().close();
  });

  it("does not show on a site that did not ask", async () => {
    url = (await createCheck()).url;
    const [page] = await open(browser!);
    const refused = page.waitForEvent("console", (message) => message.text().includes("frame-ancestors"));
    await page.goto(PARTY_ORIGIN.replace("localhost", "127.0.0.1"));
    await page.waitForSelector("iframe");
    await refused;
    expect(await page.frameLocator("iframe").locator("main").count()).toBe(0);
    await page.context().close();
  });
});
