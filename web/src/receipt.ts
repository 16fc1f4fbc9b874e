/** What was done to a face, as versioned JSON: the same as `ageveil.types.Receipt.to_json`. */

import type { Region } from "./geometry";

export const RECEIPT_VERSION = 1;

export type Parameters = Readonly<Record<string, number | string>>;

export interface Receipt {
  readonly version: typeof RECEIPT_VERSION;
  readonly approach: string;
  readonly parameters: Parameters;
  readonly region: Region;
  readonly eye_region: Region;
  readonly size: readonly [width: number, height: number];
}
