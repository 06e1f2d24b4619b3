import assert from 'node:assert/strict'
import { parseStrictJson } from '../../src/base/strict-json.ts'
import { type FuzzTarget, mutated } from './target.ts'

const seeds = [
  '{"a":{"b":[1,"x",{"c":null}]},"d":"\\u0061\\"}"}',
  '{"a":1,"b":1,"c":{"a":2}}',
  '[[[[]]]]',
  ' "text" ',
]

/** What is taken reads back as it was: no member was dropped for another of the same name. */
export const target: FuzzTarget = {
  inputs: mutated(seeds, ['"a":', '"\\u0061":', '{', '[', '{"a":{', ',', '\\', '\xc3\xa4', '"__proto__":']),
  run(input) {
    const value = parseStrictJson(input)
    let members = 0
    JSON.stringify(value, (_key, member) => {
      if (typeof member === 'object' && member !== null && !Array.isArray(member))
        members += Object.keys(member).length
      return member
    })
    // Outside of strings a colon stands after each member's name and nowhere else.
    const colons =
      input
        .toString()
        .replace(/"(?:[^"\\]|\\.)*"/gs, '')
        .match(/:/g)?.length ?? 0
    assert.equal(members, colons)
  },
  runs: 4000,
}
