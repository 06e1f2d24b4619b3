import { join } from 'node:path'
import { slicePath } from '../model/slice.ts'
import type { Config, HandlerValues, RuntimeHandler } from './config.ts'
import { camel } from './config.ts'
import type { Setting } from './config-file.ts'
import type { Environment } from './environment.ts'
import { HANDLER_NAME } from './forms.ts'
import { HANDLER_KEYS } from './keys.ts'
import { findProgram } from './programs.ts'

type Input = {
  readonly settings: readonly Setting[]
  readonly env: Environment
  readonly problems: string[]
  readonly warnings: string[]
}

/**
 * State directories that podman, CRI-O and others share. Berth removes from its own what it does not know: there it
 * would be the containers of others.
 */
const SHARED_ROOTS = [
  '/run/runc',
  '/var/run/runc',
  '/run/crun',
  '/var/run/crun',
  '/run/youki',
  '/var/run/youki',
]

/** The entries of `[crio.runtime.runtimes]` by name, every default filled in. */
export function resolveHandlers(
  input: Input,
  runtime: Pick<Config['runtime'], 'defaultRuntime' | 'conmon' | 'conmonCgroup' | 'conmonEnv'>,
  isConmonGiven: boolean,
  runroot: string,
): Readonly<Record<string, RuntimeHandler>> {
  const resolved: Record<string, RuntimeHandler> = {}
  for (const [name, values] of handlerValues(input, runtime.defaultRuntime)) {
    resolved[name] = {
      name,
      path: values.runtimePath || findProgram(name, input.env),
      isPathGiven: values.runtimePath !== '',
      root: values.runtimeRoot || join(runroot, 'runtimes', name),
      allowedAnnotations: values.allowedAnnotations,
      monitorPath: values.monitorPath || runtime.conmon,
      isMonitorPathGiven: isConmonGiven || values.monitorPath !== '',
      monitorCgroup: cgroupPath(values.monitorCgroup) || runtime.conmonCgroup,
      monitorEnv: assignments([...runtime.conmonEnv, ...values.monitorEnv]),
      noSyncLog: values.noSyncLog,
    }
  }
  return resolved
}

function handlerValues(input: Input, defaultRuntime: string): ReadonlyMap<string, HandlerValues> {
  const entries = Object.entries(HANDLER_KEYS).map(([name, key]) => [camel(name), key.default])
  // The loop sets only keys of that table, with values of their kinds.
  const defaults = Object.fromEntries(entries) as unknown as HandlerValues
  const handlers = new Map<string, HandlerValues>()
  // runc needs no entry to be the default.
  if (defaultRuntime === 'runc') handlers.set('runc', defaults)
  for (const { handler, name, value, origin } of input.settings) {
    if (handler === undefined) continue
    if (!HANDLER_NAME.test(handler)) {
      input.problems.push(
        `${origin}: the name of a runtime has lower-case letters, digits, "-" and ".", not "${handler}"`,
      )
    }
    const before = handlers.get(handler) ?? defaults
    const shared = name === 'runtime_root' && SHARED_ROOTS.includes(String(value))
    if (shared) {
      input.warnings.push(
        `${origin}: runtime_root "${value}" is not used: other programs keep their containers there`,
      )
    }
    handlers.set(handler, name === '' ? before : { ...before, [camel(name)]: shared ? '' : value })
  }
  return handlers
}

/** A slice may be given by its name alone. */
export function cgroupPath(text: string): string {
  return slicePath(text) ?? text
}

/** `NAME=value` texts by name; the last one counts. */
export function assignments(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map(text => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]),
  )
}
