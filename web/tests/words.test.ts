import { describe, expect, it } from "vitest";
import { problemWords } from "../src/words";

describe("what is said of a problem", () => {
  it("promises that nothing was sent only where it fails before anything is", () => {
    for (const code of ["internal", "unavailable", "network", "a code of tomorrow"]) {
      expect(problemWords(code).text).not.toMatch(/sent/);
    }
    expect(problemWords("no-face").text).toContain("Nothing was sent");
  });

  it("takes names of the language itself for unknown codes", () => {
    expect(problemWords("constructor")).toBe(problemWords("internal"));
  });
});
