/** Bundles the daemon and its workers into dist/, which is what bin/berth runs. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')
/** Where bin/berth lets Node keep compiled code. */
const compileCache = join(dist, '.cache')

/** Output name → source. Workers are found by name in the folder of the module that starts them. */
const entryPoints = {
  berth: 'src/main.ts',
  'namespace-worker': 'src/os/namespace-worker.ts',
  'archive-worker': 'src/storage/archive-worker.ts',
  'unpack-worker': 'src/storage/unpack-worker.ts',
}

// Bundled CommonJS packages call require() for Node's own modules.
const banner = `import { createRequire as berthCreateRequire } from 'node:module'
const require = berthCreateRequire(import.meta.url)`

mkdirSync(dist, { recursive: true })
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints,
  outdir: dist,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  // A command's modules are loaded when that command runs. Chunks stay beside the entries, so that
  // import.meta.url means the same folder in every file.
  splitting: true,
  chunkNames: '[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node24',
  external: ['koffi', 'better-sqlite3'],
  banner: { js: banner },
  // The text of the program stays in memory: without white space that is 4 MiB less. Names stay, and with the
  // source maps a stack trace leads to the source.
  minifyWhitespace: true,
  minifySyntax: true,
  lineLimit: 200,
  sourcemap: 'linked',
  legalComments: 'none',
  metafile: true,
  logLevel: 'warning',
}).catch(() => process.exit(1)) // esbuild has said why

const outputs = Object.entries(metafile.outputs).map(([path, output]) => ({
  name: path.slice('dist/'.length),
  output,
}))

const written = new Set(outputs.map(output => output.name))
for (const name of readdirSync(dist)) {
  if (/\.mjs(\.map)?$/.test(name) && !written.has(name)) rmSync(join(dist, name))
}

// Compiled code saves a quarter of the daemon's start, but Node writes it when a process ends in peace, which the
// daemon may never do. Chunks only define things, so they can be loaded here.
rmSync(compileCache, { recursive: true, force: true })
const chunks = outputs.filter(({ name, output }) => name.endsWith('.mjs') && !isEntry(output.entryPoint))
const script = chunks.map(({ name }) => `import ${JSON.stringify(join(dist, name))}\n`).join('')
execFileSync(process.execPath, ['--input-type=module', '--eval', script], {
  env: { NODE_COMPILE_CACHE: compileCache },
  stdio: 'inherit',
})

function isEntry(source: string | undefined): boolean {
  return Object.values(entryPoints).some(path => path === source)
}
