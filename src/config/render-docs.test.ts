import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileFlags, keyFlags } from './flags.ts'
import { SECTIONS } from './keys.ts'
import { generatedDocs, withGenerated } from './render-docs.ts'

const root = join(import.meta.dirname, '../..')

for (const { file, text } of generatedDocs()) {
  test(`${file} is what the table of keys says`, () => {
    const document = readFileSync(join(root, file), 'utf8')
    assert.equal(document, withGenerated(document, text), 'run scripts/generate-config-docs.ts')
  })
}

test('the man pages name every key, every flag and every variable', () => {
  const manual = readFileSync(join(root, 'docs/berth.conf.5.md'), 'utf8')
  for (const name of Object.values(SECTIONS).flatMap(keys => Object.keys(keys))) {
    assert.ok(manual.includes(`**${name}** = `), name)
  }
  const flags = readFileSync(join(root, 'docs/berth.8.md'), 'utf8')
  for (const flag of [...fileFlags(), ...keyFlags()]) {
    assert.ok(flags.includes(`**--${flag.name}**`) && flags.includes(`**${flag.variable}**`), flag.name)
  }
})

test('a document without the marks is not touched', () => {
  assert.throws(() => withGenerated('# Configuration\n', 'x'), /marks/)
})
