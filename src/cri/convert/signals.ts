import type { Signal, Signal__Output } from '../generated/runtime/v1/Signal.ts'
import { choice } from './fields.ts'

/** Three names of the interface are the kernel's second names for a signal. */
const ALIASES: Readonly<Record<string, string>> = { SIGCLD: 'SIGCHLD', SIGIOT: 'SIGABRT', SIGPOLL: 'SIGIO' }

const PLAIN =
  'ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP ' +
  'TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX'

/** CRI Signal name → the model's name. The numbers of the enum are not those of the kernel. */
const NAMES: Readonly<Record<string, string>> = signalNames()

const WIRE_NAMES: ReadonlyMap<string, string> = wireNames()

function signalNames(): Record<string, string> {
  const names: Record<string, string> = { RUNTIME_DEFAULT: '' }
  for (const name of PLAIN.split(' ')) names[`SIG${name}`] = ALIASES[`SIG${name}`] ?? `SIG${name}`
  for (let n = 1; n <= 15; n++) names[`SIGRTMINPLUS${n}`] = `SIGRTMIN+${n}`
  for (let n = 1; n <= 14; n++) names[`SIGRTMAXMINUS${n}`] = `SIGRTMAX-${n}`
  return names
}

function wireNames(): Map<string, string> {
  return new Map(
    Object.entries(NAMES)
      .filter(([wire]) => ALIASES[wire] === undefined)
      .map(([wire, name]) => [name, wire]),
  )
}

/** `SIGRTMINPLUS3` → `SIGRTMIN+3`; '' for RUNTIME_DEFAULT. */
export function toSignal(field: string, wire: Signal__Output): string {
  return choice(field, wire, NAMES)
}

/** A name that the interface cannot express is shown as RUNTIME_DEFAULT. */
export function fromSignal(name: string): Signal {
  return (WIRE_NAMES.get(name) ?? 'RUNTIME_DEFAULT') as Signal
}
