/**
 * Writes conf/berth.conf and the generated parts of docs/ from the table of configuration keys. Run it after a change
 * of src/config/keys.ts; a test compares.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { renderExample } from '../src/config/render-config.ts'
import { generatedDocs, withGenerated } from '../src/config/render-docs.ts'

const root = join(import.meta.dirname, '..')

writeFileSync(join(root, 'conf/berth.conf'), renderExample())
for (const { file, text } of generatedDocs()) {
  const path = join(root, file)
  writeFileSync(path, withGenerated(readFileSync(path, 'utf8'), text))
}
