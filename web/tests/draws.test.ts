import { describe, expect, it } from "vitest";
import { chachaBlock, ChaChaDraws } from "../src/draws";
import { key, vectors } from "./vectors";

describe("chachaBlock", () => {
  it("gives the block of RFC 8439, section 2.3.2", () => {
    const state = new Uint32Array([
      0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, 0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110,
      0x17161514, 0x1b1a1918, 0x1f1e1d1c, 0x00000001, 0x09000000, 0x4a000000, 0x00000000,
    ]);
    const out = new Uint32Array(16);
    chachaBlock(state, out);
    expect([...out]).toEqual([
      0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033, 0x9aaa2204, 0x4e6cd4c3, 0x466482d2,
      0x09aa9f07, 0x05d7c214, 0xa2028bd9, 0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2,
    ]);
  });
});

describe("ChaChaDraws", () => {
  it("starts with the stream of RFC 8439, A.1, vectors 1 and 2", () => {
    const draws = new ChaChaDraws(new Uint8Array(32));
    const words = Array.from({ length: 17 }, () => draws.integer(2 ** 32));
    expect(words[0]).toBe(0xade0b876); // the bytes 76 b8 e0 ad
    expect(words[16]).toBe(0xbee7079f); // block counter 1: the bytes 9f 07 e7 be
  });

  it.each(vectors.draws)("draws as Python does, key $key", (entry) => {
    const draws = new ChaChaDraws(key(entry.key));
    expect(entry.bounds.map((bound) => draws.integer(bound))).toEqual(entry.draws);
  });

  it("takes a fresh key by default", () => {
    expect(new ChaChaDraws().integer(2 ** 32)).not.toBe(new ChaChaDraws().integer(2 ** 32));
  });

  it.each([0, -1, 1.5, 2 ** 32 + 1, Number.NaN])("refuses the bound %s", (bound) => {
    expect(() => new ChaChaDraws(new Uint8Array(32)).integer(bound)).toThrow(RangeError);
  });

  it.each([31, 33])("refuses a key of %s bytes", (length) => {
    expect(() => new ChaChaDraws(new Uint8Array(length))).toThrow(RangeError);
  });
});
