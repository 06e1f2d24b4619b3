import { type Command, Option } from 'commander'
import { type FlagSpec, fileFlags, keyFlags } from '../config/flags.ts'

/** Flags as they were given: name → every text. */
export type GivenFlags = Record<string, string[]>

/** Adds --config, --config-dir and one flag for every key. */
export function addConfigFlags(command: Command): Command {
  for (const flag of [...fileFlags(), ...keyFlags()]) command.addOption(optionOf(flag))
  return command
}

function optionOf(flag: FlagSpec): Option {
  const short = flag.short === undefined ? '' : `-${flag.short}, `
  const option = new Option(`${short}--${flag.name} ${flag.isSwitch ? '[yes]' : '<value>'}`, flag.description)
  // Texts are checked by the table of keys, which also knows which flags may be repeated.
  return option.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text])
}

export function givenFlags(command: Command): GivenFlags {
  const values: Record<string, unknown> = command.opts()
  const flags: GivenFlags = {}
  for (const { name } of [...fileFlags(), ...keyFlags()]) {
    const value = values[attributeOf(name)]
    if (Array.isArray(value)) flags[name] = value.map(String)
    else if (value === true)
      flags[name] = [''] // a switch without a value
    else if (typeof value === 'string') flags[name] = [value]
  }
  return flags
}

/** commander's own rule: `cni-config-dir` → `cniConfigDir`. */
function attributeOf(flag: string): string {
  return flag.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
}
