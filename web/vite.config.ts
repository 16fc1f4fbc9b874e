import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

/** Files that are built in as they are, by their names there: what libraries fetch at run time, and licences. */
const COPIED: Readonly<Record<string, string>> = Object.fromEntries([
  ...["blazeface", "facemesh", "antispoof", "liveness"].flatMap((model) =>
    ["json", "bin"].map((kind) => [`models/${model}.${kind}`, `node_modules/@vladmandic/human/models/${model}.${kind}`]),
  ),
  ...["tfjs-backend-wasm.wasm", "tfjs-backend-wasm-simd.wasm"].map((file) => [
    `wasm/${file}`,
    `node_modules/@tensorflow/tfjs-backend-wasm/dist/${file}`,
  ]),
  ["notice.md", "notice.md"],
  ["licence-apache-2.0.txt", "../LICENSE"],
]);

function copiedFiles(): Plugin {
  return {
    name: "copied-files",
    generateBundle() {
      for (const [fileName, path] of Object.entries(COPIED)) {
        this.emitFile({ type: "asset", fileName, source: readFileSync(new URL(path, import.meta.url)) });
      }
    },
  };
}

export default defineConfig({
  plugins: [copiedFiles()],
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
