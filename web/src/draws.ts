/**
 * Uniform draws from a ChaCha20 key stream: the same key gives the same draws as in Python (`ageveil.draws`).
 *
 * The stream is that of RFC 8439 with 12 zero bytes as nonce and a block counter from 0. Each draw takes the next
 * 32-bit little-endian word w until w < floor(2^32 / bound) * bound, and is w mod bound. A bound of 1 takes a word
 * as well.
 */

const WORD_VALUES = 2 ** 32;
const BLOCK_WORDS = 16;

/** A source of uniform whole numbers. */
export interface Draws {
  /** Draw one whole number in [0, bound). @throws RangeError unless the bound is a whole number from 1 to 2^32. */
  integer(bound: number): number;
}

/** Draws from ChaCha20. Give a key (32 bytes) in tests only: whoever knows it knows every draw. */
export class ChaChaDraws implements Draws {
  readonly #state: Uint32Array;
  readonly #block = new Uint32Array(BLOCK_WORDS);
  #taken = BLOCK_WORDS;

  /** @throws RangeError the key has not 32 bytes. */
  constructor(key: Uint8Array = crypto.getRandomValues(new Uint8Array(32))) {
    if (key.length !== 32) throw new RangeError(`a ChaCha20 key has 32 bytes, got ${key.length}`);
    const words = new DataView(key.buffer, key.byteOffset, 32);
    this.#state = new Uint32Array(BLOCK_WORDS);
    this.#state.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]); // "expand 32-byte k"
    for (let i = 0; i < 8; i++) this.#state[4 + i] = words.getUint32(4 * i, true);
  }

  integer(bound: number): number {
    if (!Number.isInteger(bound) || bound < 1 || bound > WORD_VALUES) {
      throw new RangeError(`a bound lies from 1 to 2**32, got ${bound}`);
    }
    const limit = WORD_VALUES - (WORD_VALUES % bound);
    let word = this.#word();
    while (word >= limit) word = this.#word();
    return word % bound;
  }

  #word(): number {
    if (this.#taken === BLOCK_WORDS) {
      chachaBlock(this.#state, this.#block);
      if (++this.#state[12] === 0) throw new RangeError("the key stream has ended");
      this.#taken = 0;
    }
    return this.#block[this.#taken++];
  }
}

/**
 * The block function of RFC 8439, section 2.3.
 *
 * @param state 16 words: constants, key, block counter, nonce.
 * @param out 16 words of key stream.
 */
export function chachaBlock(state: Uint32Array, out: Uint32Array): void {
  out.set(state);
  for (let round = 0; round < 10; round++) {
    quarterRound(out, 0, 4, 8, 12);
    quarterRound(out, 1, 5, 9, 13);
    quarterRound(out, 2, 6, 10, 14);
    quarterRound(out, 3, 7, 11, 15);
    quarterRound(out, 0, 5, 10, 15);
    quarterRound(out, 1, 6, 11, 12);
    quarterRound(out, 2, 7, 8, 13);
    quarterRound(out, 3, 4, 9, 14);
  }
  for (let i = 0; i < BLOCK_WORDS; i++) out[i] += state[i];
}

function quarterRound(x: Uint32Array, a: number, b: number, c: number, d: number): void {
  x[a] += x[b];
  x[d] = rotate(x[d] ^ x[a], 16);
  x[c] += x[d];
  x[b] = rotate(x[b] ^ x[c], 12);
  x[a] += x[b];
  x[d] = rotate(x[d] ^ x[a], 8);
  x[c] += x[d];
  x[b] = rotate(x[b] ^ x[c], 7);
}

function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
