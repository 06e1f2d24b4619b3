/**
 * `npm run fuzz [-- TARGET …] [--seconds N] [--seed S]`: tries random inputs on each target. An input that fails is
 * made smaller, kept in test/fuzz/corpus/TARGET/ and tried first by every later run. The exit code is 1 if any failed.
 */
import { randomInt } from 'node:crypto'
import { relative } from 'node:path'
import { parseArgs } from 'node:util'
import { describeFinding, fuzz, keepInput, loadTarget, readCorpus, targetNames } from './driver.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '30' }, seed: { type: 'string' } },
})
const seconds = Number(values.seconds)
const seed = Number(values.seed ?? randomInt(2 ** 31))
const known = targetNames()
const names = positionals.length === 0 ? known : positionals
const unknown = names.find(name => !known.includes(name))
if (unknown !== undefined || !(seconds > 0) || !Number.isInteger(seed)) {
  console.error(`fuzz: expected targets (${known.join(', ')}), --seconds N and --seed S`)
  process.exit(2)
}

for (const name of names) {
  const target = await loadTarget(name)
  const { runs, finding } = await fuzz(target, readCorpus(name), { seed, milliseconds: seconds * 1000 })
  console.log(`${finding === undefined ? 'ok  ' : 'FAIL'} ${name}: ${runs} inputs, seed ${seed}`)
  if (finding === undefined) continue
  process.exitCode = 1
  console.log(describeFinding(finding))
  console.log(`kept as ${relative(process.cwd(), keepInput(name, finding.input))}`)
}
