import { variableOf } from './environment.ts'
import { SECTIONS } from './keys.ts'
import { boolean } from './kinds.ts'

/** One command-line flag of `berth daemon`. */
export type FlagSpec = {
  /** Without the dashes. */
  readonly name: string
  readonly short?: string
  readonly description: string
  /** May stand without a value. */
  readonly isSwitch: boolean
  readonly variable: string
}

const FILE_FLAGS: readonly FlagSpec[] = [
  {
    name: 'config',
    short: 'c',
    description: 'The configuration file. Default: `/etc/berth/berth.conf`, which may be missing.',
    isSwitch: false,
    variable: 'BERTH_CONFIG',
  },
  {
    name: 'config-dir',
    short: 'd',
    description:
      'Directory of drop-ins (`*.conf`, in order of their names). Default: the name of the file with `.d`.',
    isSwitch: false,
    variable: 'BERTH_CONFIG_DIR',
  },
]

const HANDLER_FLAG: FlagSpec = {
  name: 'runtimes',
  description: 'Entry of crio.runtime.runtimes, `name:path` or `name:path:root`. May be given several times.',
  isSwitch: false,
  variable: 'BERTH_RUNTIMES',
}

/** Where the configuration is read from; every command takes these. */
export function fileFlags(): readonly FlagSpec[] {
  return FILE_FLAGS
}

/** One flag for every key. */
export function keyFlags(): readonly FlagSpec[] {
  const flags = Object.values(SECTIONS).flatMap(keys =>
    Object.values(keys).map(key => ({
      name: key.flag,
      ...(key.short === undefined ? {} : { short: key.short }),
      description: key.description,
      isSwitch: key.kind === boolean,
      variable: variableOf(key.flag),
    })),
  )
  return [...flags, HANDLER_FLAG]
}
