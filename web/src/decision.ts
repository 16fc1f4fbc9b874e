/** From probabilities over the years 0 to 100 to an outcome: the rule of `ageveil.decision`. */

export type Outcome = "allow" | "deny" | "step_up";

/** How sure an answer must be. */
export interface Terms {
  /** Whole years above the minimum age. */
  readonly buffer: number;
  readonly confidence: number;
  /** Of the approach; above 1 it takes certainty away. */
  readonly temperature: number;
}

/** Raise probabilities to the power 1 / temperature and scale them to sum 1. What is 0 stays 0. */
export function applyTemperature(probabilities: ArrayLike<number>, temperature: number): Float64Array {
  const scaled = Float64Array.from(probabilities, (p) => Math.log(p) / temperature);
  const highest = scaled.reduce((one, other) => Math.max(one, other), -Infinity);
  return normalised(scaled.map((value) => Math.exp(value - highest)));
}

/** The mean of the distributions of several pictures of one person: never surer than the surest of them. */
export function fuse(distributions: readonly Float64Array[]): Float64Array {
  if (distributions.length === 0) throw new RangeError("expected one age distribution or more, got none");
  const sum = new Float64Array(distributions[0].length);
  for (const years of distributions) years.forEach((p, age) => (sum[age] += p));
  return normalised(sum);
}

/**
 * Allow if P(age >= minimum + buffer) >= confidence, else deny if P(age < minimum) >= confidence, else step up.
 *
 * @throws RangeError the probabilities are no distribution: nothing is decided from a model that failed.
 */
export function decide(years: Float64Array, minimumAge: number, terms: Terms): Outcome {
  const total = years.reduce((sum, p) => sum + p, 0);
  if (!(Math.abs(total - 1) <= 1e-3)) throw new RangeError("the model returned no probabilities");
  const share = (from: number, to?: number) => years.subarray(from, to).reduce((sum, p) => sum + p, 0);
  if (share(minimumAge + terms.buffer) >= terms.confidence) return "allow";
  return share(0, minimumAge) >= terms.confidence ? "deny" : "step_up";
}

function normalised(values: Float64Array): Float64Array {
  const sum = values.reduce((total, value) => total + value, 0);
  return values.map((value) => value / sum);
}
