/**
 * The one hook through which every effect passes: each system call that changes something, each child process,
 * each transaction, each request to a registry. A test installs a hook to stop, fail, delay or kill the daemon at
 * effect number N; without one the cost is a null check.
 *
 * The hook runs *before* the effect. "After effect N" is "before effect N+1".
 */
export type EffectLayer = 'os' | 'state' | 'runtime' | 'network' | 'storage' | 'registry'

export type Effect = {
  readonly layer: EffectLayer
  /** The verb, constant per call site: `mount`, `commit`, `cni-add`. */
  readonly name: string
  /** What it acts on: a path, an id, a reference. Never a secret. */
  readonly subject: string
}

export type EffectHook = {
  /** May throw (the effect fails), block (it is late) or kill the process. */
  sync(effect: Effect): void
  async(effect: Effect): Promise<void>
}

let hook: EffectHook | undefined

export function setEffectHook(next: EffectHook | undefined): void {
  hook = next
}

export function effectSync<T>(layer: EffectLayer, name: string, subject: string, run: () => T): T {
  if (hook !== undefined) hook.sync({ layer, name, subject })
  return run()
}

export function effect<T>(
  layer: EffectLayer,
  name: string,
  subject: string,
  run: () => Promise<T>,
): Promise<T> {
  if (hook === undefined) return run()
  return hook.async({ layer, name, subject }).then(run)
}
