/**
 * `<ageveil-check src="https://age.example/check/ID#SECRET">`: a frame of the service's page, and nothing more.
 *
 * The embedding page's scripts cannot reach into the frame of another origin, so they never touch the camera. Only
 * the token crosses: the element fires `ageveil-token` with `detail.token` and `detail.outcome`.
 */

interface TokenMessage {
  readonly type: "ageveil-token";
  readonly token: string;
  readonly outcome: string;
}

class AgeveilCheck extends HTMLElement {
  static readonly observedAttributes = ["src"];

  readonly #frame = document.createElement("iframe");
  readonly #listen = (event: MessageEvent<unknown>): void => this.#receive(event);
  #origin = "";

  connectedCallback(): void {
    window.addEventListener("message", this.#listen);
    this.#show();
  }

  disconnectedCallback(): void {
    window.removeEventListener("message", this.#listen);
    this.#frame.remove();
  }

  attributeChangedCallback(): void {
    if (this.isConnected) this.#show();
  }

  #show(): void {
    const src = this.getAttribute("src");
    if (src === null) return;
    const url = new URL(src, location.href);
    if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError("src is a web address");
    this.#origin = url.origin;
    const frame = this.#frame;
    frame.title = "Age check";
    frame.allow = `camera ${url.origin}`;
    frame.referrerPolicy = "no-referrer";
    frame.src = url.href;
    Object.assign(frame.style, { border: "0", width: "100%", height: "44rem", display: "block" });
    this.append(frame);
  }

  #receive({ origin, source, data }: MessageEvent<unknown>): void {
    if (origin !== this.#origin || source !== this.#frame.contentWindow || !isToken(data)) return;
    const { token, outcome } = data;
    this.dispatchEvent(new CustomEvent("ageveil-token", { detail: { token, outcome }, bubbles: true }));
  }
}

function isToken(data: unknown): data is TokenMessage {
  if (typeof data !== "object" || data === null) return false;
  const { type, token, outcome } = data as Record<string, unknown>;
  return type === "ageveil-token" && typeof token === "string" && typeof outcome === "string";
}

customElements.define("ageveil-check", AgeveilCheck);

export {};
