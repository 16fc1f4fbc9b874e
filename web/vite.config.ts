import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const PACKAGES = new URL("node_modules/", import.meta.url);

/** Files that libraries fetch at run time, by where our own origin serves them. */
const FETCHED: Readonly<Record<string, string>> = Object.fromEntries([
  ...["blazeface", "facemesh", "antispoof", "liveness"].flatMap((model) =>
    ["json", "bin"].map((kind) => [`models/${model}.${kind}`, `@vladmandic/human/models/${model}.${kind}`]),
  ),
  ...["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm"].map((file) => [
    `wasm/${file}`,
    `@tensorflow/tfjs-backend-wasm/dist/${file}`,
  ]),
]);

function fetchedFiles(): Plugin {
  return {
    name: "fetched-files",
    generateBundle() {
      for (const [fileName, path] of Object.entries(FETCHED)) {
        this.emitFile({ type: "asset", fileName, source: readFileSync(new URL(path, PACKAGES)) });
      }
    },
  };
}

export default defineConfig({
  plugins: [fetchedFiles()],
  build: {
    target: "es2022",
    outDir: fileURLToPath(new URL("../src/ageveil/service/static", import.meta.url)),
    emptyOutDir: true,
    license: { fileName: "licences.md" },
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 2500, // the face library; it is fetched while the visitor reads
    rolldownOptions: {
      input: {
        page: fileURLToPath(new URL("index.html", import.meta.url)),
        element: fileURLToPath(new URL("src/element.ts", import.meta.url)),
      },
      output: {
        entryFileNames: (chunk) => (chunk.name === "element" ? "element.js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
