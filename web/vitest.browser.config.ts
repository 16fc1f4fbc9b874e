import { defineConfig } from "vitest/config";

/** Tests in Chromium against a running service; tests/web/test_browser.py starts both. */
export default defineConfig({
  test: { include: ["browser/**/*.test.ts"], fileParallelism: false, testTimeout: 90_000, hookTimeout: 60_000 },
});
