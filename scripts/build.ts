/** Bundles the daemon and its workers into dist/, which is what bin/berth runs. */
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')

/** Output name → source. Workers are found by name in the folder of the module that starts them. */
const entryPoints = {
  berth: 'src/main.ts',
  'namespace-worker': 'src/os/namespace-worker.ts',
  'unpack-worker': 'src/storage/unpack-worker.ts',
}

// Bundled CommonJS packages call require() for Node's own modules.
const banner = `import { createRequire as berthCreateRequire } from 'node:module'
const require = berthCreateRequire(import.meta.url)`

mkdirSync(dist, { recursive: true })
const result = await build({
  absWorkingDir: root,
  entryPoints,
  outdir: dist,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  // A command's modules are loaded when that command runs. Chunks stay beside the entries, so that
  // import.meta.url means the same folder in every file.
  splitting: true,
  chunkNames: 'chunk-[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node24',
  external: ['koffi', 'better-sqlite3'],
  banner: { js: banner },
  sourcemap: 'linked',
  keepNames: true,
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
}).catch(() => process.exit(1)) // esbuild has said why

const written = new Set(Object.keys(result.metafile.outputs).map(path => path.slice('dist/'.length)))
for (const name of readdirSync(dist)) {
  if (/\.mjs(\.map)?$/.test(name) && !written.has(name)) rmSync(join(dist, name))
}
