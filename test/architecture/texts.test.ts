import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { filesIn, root } from './sources.ts'

const FOLDERS = ['src', 'test', 'bench', 'scripts', 'docs', 'conf', 'systemd', 'proto', 'bin', '.ci']
const TOP = [
  'README.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'package.json',
  'package-lock.json',
]

const paths = [...TOP, ...FOLDERS.filter(folder => existsSync(join(root, folder))).flatMap(filesIn)].filter(
  path => existsSync(join(root, path)) && !path.startsWith('src/cri/generated/'),
)
const texts = new Map(paths.map(path => [path, readFileSync(join(root, path), 'utf8')]))

function linesWith(pattern: RegExp, except: (path: string) => boolean = () => false): string[] {
  return [...texts]
    .filter(([path]) => !except(path))
    .flatMap(([path, text]) =>
      text
        .split('\n')
        .map((line, index) => ({ line, at: `${path}:${index + 1}` }))
        .filter(({ line }) => pattern.test(line))
        .map(({ line, at }) => `${at}: ${line.trim().slice(0, 120)}`),
    )
}

test('no text names the place where it was written', () => {
  const home = dirname(root)
  // A checkout directly below /tmp or /root says nothing about other mentions of those.
  const places = [root, ...(home.split('/').length > 2 || home === '/work' ? [`${home}/`] : [])]
  for (const place of places) {
    const name = new RegExp(`(?<![\\w.-])${place.replace(/[.\\+*?[\](){}^$|]/g, '\\$&')}(?![\\w-])`)
    assert.deepEqual(
      linesWith(name, path => path.endsWith('texts.test.ts')),
      [],
    )
  }
})

test('nothing is left for later in a comment', () => {
  const words = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'].join('|')})\\b`)
  assert.deepEqual(
    linesWith(words, path => path === 'package-lock.json'),
    [],
  )
})

test('every npm script a document names exists, and every script is in a document', () => {
  const scripts = Object.keys(JSON.parse(texts.get('package.json')!).scripts)
  const documents = [...texts].filter(([path]) => path.endsWith('.md'))
  const named = documents.flatMap(([path, text]) => [
    ...[...text.matchAll(/\bnpm run ([a-z][a-z:-]*)/g)].map(match => ({ path, script: match[1]! })),
    ...[...text.matchAll(/\bnpm (test|start)\b/g)].map(match => ({ path, script: match[1]! })),
  ])
  for (const { path, script } of named) assert.ok(scripts.includes(script), `${path} names npm run ${script}`)
  const missing = scripts.filter(script => !named.some(name => name.script === script))
  assert.deepEqual(missing, [], 'scripts that no document explains')
})

test('relative links of the documents lead somewhere', () => {
  for (const [path, text] of texts) {
    if (!path.endsWith('.md')) continue
    for (const [, target] of text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)/g)) {
      assert.ok(existsSync(join(root, dirname(path), target!)), `${path} links to ${target}`)
    }
  }
})
